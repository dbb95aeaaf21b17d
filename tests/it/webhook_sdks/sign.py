"""Webhooks signed by the providers' own libraries, as a list in JSON on standard output.

Standard input is JSON: `secrets` maps makers to theirs, `bodies` is a list of texts. Shopify, Jira and Trello have no library
that signs: theirs are made as their documentation says, with nothing but Python's own `hmac`.
"""

import base64
import hashlib
import hmac
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


def mac(maker, text, algorithm):
    return hmac.new(secrets[maker].encode(), text.encode(), algorithm)


def shopify(number, body):
    digest = mac("shopify", body, hashlib.sha256).digest()
    return {"X-Shopify-Hmac-SHA256": base64.b64encode(digest).decode(), "X-Shopify-Topic": "orders/create"}


def jira(number, body):
    return {"X-Hub-Signature": "sha256=" + mac("jira", body, hashlib.sha256).hexdigest()}


def trello(number, body):
    digest = mac("trello", body + asked["trello_callback_url"], hashlib.sha1).digest()
    return {"X-Trello-Webhook": base64.b64encode(digest).decode()}


makers = {
    "slack": slack,
    "stripe": stripe_,
    "standardwebhooks": standard,
    "svix": svix_,
    "shopify": shopify,
    "jira": jira,
    "trello": trello,
}
signed = [
    {"maker": maker, "fields": sign(number, body), "body": body}
    for maker, sign in makers.items()
    for number, body in enumerate(bodies)
]
json.dump(signed, sys.stdout)
