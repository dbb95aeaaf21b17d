"""Webhooks signed by the providers' own libraries, as a list in JSON on standard output.

Standard input is JSON: `secrets` maps makers to theirs, `bodies` is a list of texts.
"""

import json
import sys
import time
from datetime import datetime, timezone

import slack_sdk.signature
import standardwebhooks
import stripe
import svix.webhooks

asked = json.load(sys.stdin)
secrets, bodies = asked["secrets"], asked["bodies"]
now = int(time.time())


def slack(number, body):
    stamp = str(now)
    signature = slack_sdk.signature.SignatureVerifier(secrets["slack"]).generate_signature(timestamp=stamp, body=body)
    return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature}


def stripe_(number, body):
    return {"Stripe-Signature": stripe.WebhookSignature.generate_signature_header(body, secrets["stripe"], now)}


def standard(number, body):
    identity = f"msg_{number}"
    moment = datetime.fromtimestamp(now, tz=timezone.utc)
    signature = standardwebhooks.Webhook(secrets["standardwebhooks"]).sign(identity, moment, body)
    return {"webhook-id": identity, "webhook-timestamp": str(now), "webhook-signature": signature}


def svix_(number, body):
    identity = f"msg_svix_{number}"
    moment = datetime.fromtimestamp(now, tz=timezone.utc)
    signature = svix.webhooks.Webhook(secrets["svix"]).sign(identity, moment, body)
    return {"svix-id": identity, "svix-timestamp": str(now), "svix-signature": signature}


makers = {"slack": slack, "stripe": stripe_, "standardwebhooks": standard, "svix": svix_}
signed = [
    {"maker": maker, "fields": sign(number, body), "body": body}
    for maker, sign in makers.items()
    for number, body in enumerate(bodies)
]
json.dump(signed, sys.stdout)
