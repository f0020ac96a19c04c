"""A protoc plugin that runs the generators inside grpcio-tools, so that `buf generate` needs no protoc on the path.

buf speaks the plugin protocol (a CodeGeneratorRequest on stdin, a CodeGeneratorResponse on stdout), while grpcio-tools
offers its generators only behind a protoc command line. This file translates the one into the other.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def main() -> int:
    """Generate the modules of the files that buf asks for."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        out.mkdir()
        descriptors = Path(folder, "descriptors.binpb")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        code: int = protoc.main(
            [
                "protoc",
                f"--descriptor_set_in={descriptors}",
                *(f"--{generator}_out={out}" for generator in request.parameter.split("+")),
                *request.file_to_generate,
            ]
        )
        if code:
            return code
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=str(path.relative_to(out)), content=path.read_text())
    sys.stdout.buffer.write(response.SerializeToString())
    return 0


if __name__ == "__main__":
    sys.exit(main())
