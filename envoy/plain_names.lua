-- Refuses a header whose name gRPC cannot carry. HTTP allows `+` or `!` in a name; gRPC would end the call with an error
-- of its own, which is none of ours.
function envoy_on_request(handle)
  for name in pairs(handle:headers()) do
    if name:find("[^a-z0-9_%.:-]") then
      handle:respond({ [":status"] = "400" }, "a header has a name that is not of letters, digits, and - _ .")
      return
    end
  end
end
