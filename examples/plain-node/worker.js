// A worker without an SDK: it counts, and its count moves with it. docs/worker.md says what is asked of it.
'use strict'
const http = require('node:http')
const { randomUUID } = require('node:crypto')

const vsn = '1'
const instance = randomUUID()
let state = 'Standby'
let epoch = 0 // the highest seen
let used = '' // the command that used it
let seq = 0 // number of the last change
let value = 0 // the state
let applied = '' // the apply that is in effect
let uploads = {} // import/part: what came in
const captures = {} // one for each purpose: its name and its bytes

class Refusal extends Error {
  constructor(status, code, message, more) {
    super(message)
    Object.assign(this, { status, body: { code, message, state, epoch, ...more } })
  }
}
const wrongState = () => new Refusal(409, 'WrongState', `the worker is ${state}`)
const whole = (number) => Number.isSafeInteger(number) && number >= 0

// Each command changes the state or throws a refusal. What it returns is the answer; nothing is 204.
const commands = {
  suspend() {
    if (state === 'Standby') throw wrongState()
    state = 'Suspended'
  },
  resume() {
    if (state === 'Standby') throw wrongState()
    state = 'Active'
  },
  activate({ initial }) {
    if (state === 'Suspended') throw wrongState()
    if (state === 'Standby' && Boolean(initial) === (applied !== ''))
      throw new Refusal(409, 'InitialMismatch', '`initial` does not fit whether a state was applied')
    state = 'Active'
  },
  capture({ purpose, unlessSeq }) {
    if (state === 'Standby') throw wrongState()
    if (unlessSeq === seq) return
    const held = (captures[purpose] = { id: `${purpose}-${seq}`, bytes: Buffer.from(String(value)) })
    return { capture: held.id, seq, vsn, parts: [{ name: 'state', bytes: held.bytes.length }] }
  },
  apply(call, id) {
    const bytes = uploads[`${id}/state`] ?? Buffer.alloc(0)
    const parts = call.parts ?? []
    if (state !== 'Standby') throw wrongState()
    if (call.since != null) throw new Refusal(409, 'WrongBase', 'this worker takes whole states only')
    if (parts.length !== 1 || parts[0].name !== 'state' || parts[0].bytes !== bytes.length)
      throw new Refusal(409, 'Incomplete', 'upload the part `state`, whole')
    if (call.vsn !== vsn || !/^[0-9]{1,15}$/.test(bytes.toString('latin1')))
      throw new Refusal(422, 'CannotAccept', `\`state\` is not a number of version ${vsn}`)
    if (!call.dryRun) [value, seq] = [Number(bytes), call.seq]
  },
}

function command(name, text, id) {
  let call
  try { call = JSON.parse(text) } catch { call = null }
  if (!whole(call?.epoch)) throw new Refusal(400, 'BadRequest', "the body is not the contract's")
  const owns = ['suspend', 'resume', 'activate'].includes(name) // commands with an epoch of their own
  if (call.epoch < epoch || (owns && call.epoch === epoch && used !== '' && used !== name))
    throw new Refusal(409, 'StaleEpoch', 'send the command at a new epoch')
  if (call.epoch > epoch) [epoch, used] = [call.epoch, '']
  if (name === 'apply' && applied === id + text) return // the same again: it is in effect
  const answer = commands[name](call, id)
  if (owns) used = name
  if (name === 'apply' && !call.dryRun) applied = id + text
  return answer
}

function put(key, offset, slice) {
  const have = uploads[key]?.length ?? 0
  if (state !== 'Standby') throw wrongState()
  if (!whole(offset)) throw new Refusal(400, 'BadRequest', 'the slice has no `offset`')
  if (offset === 0) uploads = { [key]: slice } // one part, one import at a time: enough for this state
  else if (offset === have) uploads[key] = Buffer.concat([uploads[key], slice])
  // Anything but the last slice again, whose answer was lost:
  else if (offset > have || !uploads[key].subarray(offset).equals(slice))
    throw new Refusal(409, 'WrongOffset', 'continue at `have`', { have })
}

function control(method, url, body) {
  const [call, id, part] = url.pathname.replace('/v1/', '').split('/')
  const held = Object.values(captures).find((capture) => capture.id === id)
  const route = `${method} ${call}${id ? '/id' : ''}${part ? '/part' : ''}`
  if (route === 'GET info') return { contract: 1, instance, vsn, state, epoch, seq, capture: 'Live' }
  if (method === 'POST' && Object.hasOwn(commands, call) && !id) return command(call, body.toString())
  if (route === 'GET capture/id/part' && held && part === 'state') return held.bytes
  if (route === 'DELETE capture/id' && held) return { parts: [{ name: 'state', bytes: held.bytes.length }] }
  if (route === 'PUT import/id/part') return put(`${id}/${part}`, Number(url.searchParams.get('offset') ?? -1), body)
  if (route === 'POST import/id/part' && part === 'apply') return command('apply', body.toString(), id)
  if (route === 'DELETE import/id') return void (uploads = {})
  throw new Refusal(404, 'NotFound', 'no such call')
}

function clients(method, url, _body, response) {
  if (state !== 'Active' && url.pathname !== '/healthz') {
    response.setHeader('ProcessHub-State', state)
    throw new Refusal(503, 'Busy', 'not executed')
  }
  if (method === 'POST' && url.pathname === '/add') [value, seq] = [value + 1, seq + 1]
  response.setHeader('ProcessHub-Seq', seq)
  return Buffer.from(`${value}\n`)
}

function serve(address, handle) {
  const [host, port] = address.split(':')
  const server = http.createServer(async (request, response) => {
    try {
      const body = Buffer.concat(await request.toArray()) // throws if the caller hangs up: nothing was done yet
      const answer = handle(request.method, new URL(request.url, 'http://worker'), body, response)
      if (answer === undefined) response.writeHead(204).end()
      else response.end(Buffer.isBuffer(answer) ? answer : JSON.stringify(answer))
    } catch (error) {
      response.writeHead(error.status ?? 500).end(JSON.stringify(error.body ?? { code: 'Internal', message: 'failed' }))
    }
  })
  server.listen(Number(port), host)
}

serve(process.env.PROCESSHUB_CONTROL ?? '127.0.0.1:9700', control)
serve(process.env.PROCESSHUB_LISTEN ?? '127.0.0.1:8080', clients)
process.on('SIGTERM', () => process.exit(0))
