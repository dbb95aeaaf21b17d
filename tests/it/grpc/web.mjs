// Calls over gRPC-Web on connect-web. Prints what came of each as one JSON document.
//
// No generated code: methods are described by google.protobuf.BytesValue, and the service, which looks at raw bytes, sends
// back what it was sent; where it sends other bytes they are such a message too, or are not decoded.

import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { create } from "@bufbuild/protobuf";
import { BytesValueSchema } from "@bufbuild/protobuf/wkt";

const transport = createGrpcWebTransport({ baseUrl: process.argv[2] });
const bytes = (text) => new TextEncoder().encode(text);
const text = (message) => new TextDecoder().decode(message.value);

function method(service, name, kind) {
  return {
    kind: "rpc",
    name,
    localName: name,
    methodKind: kind,
    input: BytesValueSchema,
    output: BytesValueSchema,
    idempotency: 0,
    parent: { typeName: service },
  };
}

async function unary(service, name, value) {
  try {
    const message = create(BytesValueSchema, { value: bytes(value) });
    const answer = await transport.unary(method(service, name, "unary"), undefined, 20000, undefined, message);
    return { answer: text(answer.message), trailing: answer.trailer.get("x-trailing") };
  } catch (error) {
    return { code: error.code, message: error.rawMessage };
  }
}

async function count() {
  const one = (async function* () {
    yield create(BytesValueSchema, { value: bytes("5") });
  })();
  const answers = await transport.stream(method("test.Service", "CountValues", "server_streaming"), undefined, 20000, undefined, one);
  const got = [];
  for await (const answer of answers.message) got.push(text(answer));
  return got;
}

console.log(
  JSON.stringify({
    unary: await unary("test.Service", "Unary", "hello"),
    fail: await unary("test.Service", "Fail", ""),
    count: await count(),
    dead: await unary("dead.Service", "Unary", ""),
    unknown: await unary("unknown.Service", "Unary", ""),
  }),
);
