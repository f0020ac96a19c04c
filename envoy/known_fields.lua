-- Refuses a JSON body that has a field which the contract does not have. The transcoder would drop it without a word, and a
-- misspelt field would look as if it had been obeyed.
--
-- METHODS are the methods with a body: verb, pattern of the path, message. MESSAGES have their fields by name, each with
-- the name of its message, or `true` where nothing below it is checked. Both are filled in from the contract. What is not
-- JSON at all is left to the transcoder, which says where it ends being JSON.
local METHODS = $methods
local MESSAGES = $messages
local DEEPEST = 64

local walk

-- Where the string ends that begins at `at`.
local function after_string(text, at)
  while true do
    at = text:find('["\\]', at + 1)
    if at == nil then
      return nil
    elseif text:sub(at, at) == '"' then
      return at + 1
    end
    at = at + 1
  end
end

-- Where the array ends whose first item begins at `at`, or nil and the unknown field.
local function after_items(text, at, fields, depth)
  if text:match("^%s*%]", at) then
    return text:match("^%s*%]()", at)
  end
  while true do
    local stop, unknown = walk(text, at, fields, depth)
    if stop == nil then
      return nil, unknown
    end
    local mark, after = text:match("^%s*([,%]])()", stop)
    if mark ~= "," then
      return after
    end
    at = after
  end
end

-- Where the object ends whose first member begins at `at`, or nil and the unknown field.
local function after_members(text, at, fields, depth)
  if text:match("^%s*}", at) then
    return text:match("^%s*}()", at)
  end
  while true do
    local name_at = text:match('^%s*()"', at)
    local name_end = name_at and after_string(text, name_at)
    local value_at = name_end and text:match("^%s*:()", name_end)
    if value_at == nil then
      return nil
    end
    local name = text:sub(name_at + 1, name_end - 2)
    local field = fields and fields[name]
    if fields and field == nil then
      return nil, name
    end
    local stop, unknown = walk(text, value_at, MESSAGES[field], depth)
    if stop == nil then
      return nil, unknown
    end
    local mark, after = text:match("^%s*([,}])()", stop)
    if mark ~= "," then
      return after
    end
    at = after
  end
end

-- Where the value ends that begins at `at`, or nil: with the unknown field, or without when this is not JSON.
walk = function(text, at, fields, depth)
  local mark, after = text:match("^%s*([{%[\"])()", at)
  if depth > DEEPEST then
    return nil
  elseif mark == "{" then
    return after_members(text, after, fields, depth + 1)
  elseif mark == "[" then
    return after_items(text, after, fields, depth + 1)
  elseif mark == '"' then
    return after_string(text, after - 1)
  end
  return text:match("^%s*[%w%.%+%-]+()", at)
end

local function message_of(verb, path)
  for _, method in ipairs(METHODS) do
    if method.verb == verb and path:match(method.path) then
      return MESSAGES[method.message]
    end
  end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local fields = message_of(headers:get(":method"), headers:get(":path"):match("^[^?]*"))
  if fields == nil then
    return
  end
  local body = handle:body()
  if body == nil or body:length() == 0 then
    return
  end
  local _, unknown = walk(body:getBytes(0, body:length()), 1, fields, 0)
  if unknown then
    local name = unknown:match("^[%w_%-%.]+$$") and unknown:sub(1, 64) or "of this name"
    handle:respond({ [":status"] = "400" }, "the contract has no field " .. name .. " here")
  end
end
