#!/usr/bin/env python3
"""Prints the configuration of the scenario `routes`: BENCH_ROUTES routes (default 10000), each `/api/svc{i}/{*rest}`."""
import os

print("""version: 1
threads: 1
listeners: [{ bind: 127.0.0.1:@PORT@ }]
access_log: { to: none }
upstreams:
  origin: { targets: [{ address: "@UPSTREAM@" }] }
routes:""")
for i in range(int(os.environ.get("BENCH_ROUTES", "10000"))):
    print(f'  - {{ name: svc{i}, match: "/api/svc{i}/{{*rest}}", upstream: origin }}')
