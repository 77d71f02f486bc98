# Real servers of the tests, in one process: what to listen on is in the first
# argument, as JSON. Ready when it writes `ready`.
import concurrent.futures, http.server, json, os, ssl, subprocess, sys, threading, time

PORTS = json.loads(sys.argv[1])
CERTIFICATE, KEY, FILES = PORTS["certificate"], PORTS["key"], PORTS["files"]


def in_thread(run, *arguments):
    threading.Thread(target=run, args=arguments, daemon=True).start()


def tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context


def grpc_server():
    import grpc
    from shop import Ask, Customer

    def get(request, context):
        if request.id == 99:
            return Customer(name="ended", age=len(ended))
        if request.id == 404:
            context.set_trailing_metadata([("x-tries", "1")])
            context.abort(grpc.StatusCode.NOT_FOUND, "no customer 404")
        return Customer(name="Ada", ssn="856-45-6789", age=36)

    ended = []

    def watch(request, context):
        context.add_callback(lambda: ended.append(1))
        yield Customer(name="first")
        while context.is_active():
            time.sleep(0.02)

    def several(request, context):
        for index in range(3):
            yield Customer(name=f"customer {index}", ssn="856-45-6789", age=index)

    handler = grpc.method_handlers_generic_handler("shop.Shop", {
        "Get": grpc.unary_unary_rpc_method_handler(
            get, Ask.FromString, Customer.SerializeToString),
        "Watch": grpc.unary_stream_rpc_method_handler(
            watch, Ask.FromString, Customer.SerializeToString),
        "List": grpc.unary_stream_rpc_method_handler(
            several, Ask.FromString, Customer.SerializeToString),
    })
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), compression=grpc.Compression.Gzip)
    server.add_generic_rpc_handlers([handler])
    server.add_insecure_port(f"127.0.0.1:{PORTS['grpc']}")
    with open(KEY, "rb") as key, open(CERTIFICATE, "rb") as certificate:
        credentials = grpc.ssl_server_credentials([(key.read(), certificate.read())])
    server.add_secure_port(f"127.0.0.1:{PORTS['grpc_tls']}", credentials)
    server.start()
    return server


def socket_server():
    from websockets.sync.server import serve

    def answer(socket):
        for message in socket:
            if message == "card":
                message = "x" * 200 + " 4111 1111 1111 1111"
            socket.send(message)

    server = serve(answer, "127.0.0.1", PORTS["websocket"], compression="deflate")
    in_thread(server.serve_forever)


def asgi_server():
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route

    async def home(request):
        return JSONResponse({"path": request.url.path, "card": "4111 1111 1111 1111"})

    async def events(request):
        import asyncio

        async def parts():
            for index in range(3):
                yield f"data: event {index} at {time.time()}\n\n"
                await asyncio.sleep(0.3)
        return StreamingResponse(parts(), media_type="text/event-stream")

    async def upload(request):
        size = 0
        async for part in request.stream():
            size += len(part)
        return JSONResponse({"size": size})

    async def chat(request):
        await request.body()
        call = {"id": "c1", "type": "function",
                "function": {"name": "shell", "arguments": "{\"cmd\":\"ls\"}"}}
        if request.query_params.get("stream"):
            async def parts():
                for delta in ({"role": "assistant", "content": "I "}, {"content": "look"},
                              {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "shell", "arguments": ""}}]},
                              {"tool_calls": [{"index": 0, "function": {"arguments": "{\"cmd\":"}}]},
                              {"tool_calls": [{"index": 0, "function": {"arguments": "\"ls\"}"}}]}):
                    chunk = {"model": "m", "choices": [{"index": 0, "delta": delta}]}
                    yield f"data: {json.dumps(chunk)}\n\n"
                yield "data: [DONE]\n\n"
            return StreamingResponse(parts(), media_type="text/event-stream")
        return JSONResponse({"model": "m", "choices": [
            {"message": {"role": "assistant", "content": "I look", "tool_calls": [call]}}]})

    app = Starlette(routes=[
        Route("/events", events),
        Route("/upload", upload, methods=["POST"]),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/{rest:path}", home),
    ])
    config = uvicorn.Config(app, host="127.0.0.1", port=PORTS["asgi"], log_level="warning",
                            ssl_certfile=CERTIFICATE, ssl_keyfile=KEY)
    in_thread(uvicorn.Server(config).run)


def mcp_server():
    import uvicorn
    from mcp.server.mcpserver import MCPServer
    server = MCPServer("tools")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    @server.tool()
    def delete_everything(really: bool) -> str:
        """Deletes everything."""
        return "gone"

    config = uvicorn.Config(server.streamable_http_app(), host="127.0.0.1", port=PORTS["mcp"],
                            log_level="warning")
    in_thread(uvicorn.Server(config).run)


class Files(http.server.SimpleHTTPRequestHandler):
    """Files, and git's own server as CGI below /git/."""
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, directory=FILES, **named)

    def do_GET(self):
        return self.git(b"") if self.path.startswith("/git/") else super().do_GET()

    def do_POST(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.git(body)

    def git(self, body):
        path, _, query = self.path[len("/git"):].partition("?")
        variables = dict(os.environ, GIT_PROJECT_ROOT=FILES, GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path,
                         QUERY_STRING=query, REQUEST_METHOD=self.command,
                         CONTENT_TYPE=self.headers.get("Content-Type", ""), REMOTE_USER="agent",
                         HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""),
                         GIT_PROTOCOL=self.headers.get("Git-Protocol", ""))
        done = subprocess.run(["git", "http-backend"], input=body, env=variables, capture_output=True)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n") if line]
        status = next((int(v.split()[0]) for n, v in fields if n == "Status"), 200)
        self.send_response(status)
        for name, value in fields:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def file_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORTS["https"]), Files)
    server.socket = tls().wrap_socket(server.socket, server_side=True)
    in_thread(server.serve_forever)


if __name__ == "__main__":
    kept = grpc_server()
    socket_server()
    asgi_server()
    mcp_server()
    file_server()
    print("ready", flush=True)
    threading.Event().wait()
