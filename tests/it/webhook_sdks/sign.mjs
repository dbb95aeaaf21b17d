// Webhooks signed by @octokit/webhooks-methods, as a list in JSON on standard output.
//
// Standard input is JSON: `secrets` maps makers to theirs, `bodies` is a list of texts.

import { readFileSync } from "node:fs";
import { sign } from "@octokit/webhooks-methods";

const { secrets, bodies } = JSON.parse(readFileSync(0, "utf8"));
const signed = await Promise.all(
  bodies.map(async (body) => ({
    maker: "octokit",
    fields: { "X-Hub-Signature-256": await sign(secrets.octokit, body), "X-GitHub-Event": "push" },
    body,
  })),
);
process.stdout.write(JSON.stringify(signed));
