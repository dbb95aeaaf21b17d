"""A gRPC health server: prints its port, then sets the status of tasks.v1.Tasks to each line that it reads."""

import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE = "tasks.v1.Tasks"

server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
servicer = health.HealthServicer()
servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
for line in sys.stdin:
    servicer.set(SERVICE, health_pb2.HealthCheckResponse.ServingStatus.Value(line.strip()))
server.stop(None)
