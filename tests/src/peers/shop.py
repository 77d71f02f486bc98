# The messages and the service that the tests' gRPC speaks; client and server share it.
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto


def _file():
    file = descriptor_pb2.FileDescriptorProto(
        name="shop.proto", package="shop", syntax="proto3")
    customer = file.message_type.add(name="Customer")
    fields = [("name", _FIELD.TYPE_STRING), ("ssn", _FIELD.TYPE_STRING), ("age", _FIELD.TYPE_INT32)]
    for number, (name, kind) in enumerate(fields, 1):
        customer.field.add(name=name, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
    ask = file.message_type.add(name="Ask")
    ask.field.add(name="id", number=1, type=_FIELD.TYPE_INT64, label=_FIELD.LABEL_OPTIONAL)
    service = file.service.add(name="Shop")
    service.method.add(name="Get", input_type=".shop.Ask", output_type=".shop.Customer")
    service.method.add(name="List", input_type=".shop.Ask", output_type=".shop.Customer",
                       server_streaming=True)
    service.method.add(name="Watch", input_type=".shop.Ask", output_type=".shop.Customer",
                       server_streaming=True)
    return file


FILE = _file()
_pool = descriptor_pool.DescriptorPool()
_pool.Add(FILE)
Customer = message_factory.GetMessageClass(_pool.FindMessageTypeByName("shop.Customer"))
Ask = message_factory.GetMessageClass(_pool.FindMessageTypeByName("shop.Ask"))


def descriptor_set():
    return descriptor_pb2.FileDescriptorSet(file=[FILE]).SerializeToString()
