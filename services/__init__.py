"""The services of the mesh, one room each, and the kit that they stand on."""

import os

# gRPC has no setting for the oldest TLS that it speaks. This cipher is of TLS 1.2 and needs an RSA key, which no part
# of the mesh has: so 1.3 is all that is left. It is read when grpc is imported, hence here, before anything else.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES128-GCM-SHA256"
