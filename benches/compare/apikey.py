"""Prints the configuration of the scenario `apikey`: 100 consumers with a key each, `key-00000` to `key-00099`."""

import hashlib

print(
    """version: 1
threads: 1
listeners: [{ bind: 127.0.0.1:@PORT@ }]
access_log: { to: none }
upstreams:
  origin: { targets: [{ address: "@UPSTREAM@" }] }
routes:
  - name: all
    match: "/{*rest}"
    filters: [{ auth: { accept: [api_key], forward: { name: X-Consumer } } }]
    upstream: origin
consumers:"""
)
for number in range(100):
    digest = hashlib.sha256(f"key-{number:05d}".encode()).hexdigest()
    print(f"  - {{ name: client-{number}, keys: [{{ id: key-{number}, sha256: {digest} }}] }}")
