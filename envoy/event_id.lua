-- Puts the SSE `id:` before each event, so that browsers resume by themselves with Last-Event-ID.
--
-- `sequence` is the first field of an event and JSON keeps that order, so the number stands at the start of the line. Line
-- ends inside of strings are escaped, so nothing that an agent says can look like the start of a line.
function envoy_on_response(handle)
  if handle:headers():get("content-type") ~= "text/event-stream" then
    return
  end
  for chunk in handle:bodyChunks() do
    local text = "\n" .. chunk:getBytes(0, chunk:length())
    text = text:gsub('\ndata: {"sequence":"(%d+)"', '\nid: %1%0')
    chunk:setBytes(text:sub(2))
  end
end
