//! WebSockets: opened by a request that is judged, and carried message by message.

use anyhow::Result;
use interceptor_tests::needs;
use interceptor_tests::scripted::Scripted;
use interceptor_tests::web::Web;

const RULES: &str = "
version: 1
rules:
  - name: no-secret-socket
    match: { http: { path: /secret } }
    verdict: block
";

/// Opens a WebSocket, says `hello` and prints what comes back.
const CLIENT: &str = "import socket,sys\n\
    s=socket.create_connection(('127.0.0.1',int(sys.argv[1])))\n\
    s.settimeout(10)\n\
    s.sendall(b'GET '+sys.argv[2].encode()+b' HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nConnection: Upgrade\\r\\n'\n\
    \x20   b'Upgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\n'\n\
    \x20   b'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n')\n\
    head=b''\n\
    while b'\\r\\n\\r\\n' not in head: head+=s.recv(1)\n\
    print(head.split(b'\\r\\n')[0].decode())\n\
    if b' 101 ' in head:\n\
    \x20   mask=b'\\x01\\x02\\x03\\x04'\n\
    \x20   s.sendall(b'\\x81\\x85'+mask+bytes(c^mask[i%4] for i,c in enumerate(b'hello')))\n\
    \x20   got=b''\n\
    \x20   while len(got)<7: got+=s.recv(64)\n\
    \x20   print(got[2:7].decode())\n";

#[test]
fn a_websocket_is_opened_and_carries_messages_both_ways() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let server = Scripted::start(|connection| {
        connection.head()?;
        connection.say(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )?;
        let frame = connection.body(11)?;
        let (mask, said) = frame.split_at(2).1.split_at(4);
        let mut answer = vec![0x81, 5];
        answer.extend(said.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
        if let (Some(last), Some(mask)) = (said.get(4), mask.first()) {
            answer.push(last ^ mask);
        }
        connection.say_bytes(&answer)?;
        connection
            .closes_within(std::time::Duration::from_secs(10))
            .map(drop)
    })?;
    let web = Web::before(&server, RULES)?;
    web.test(|web| {
        let port = server.port.to_string();
        let words = |path| ["/usr/bin/python3", "-c", CLIENT, &port, path];
        let done = web.agent("talker").run(&words("/talk"))?.ok()?;
        assert_eq!(done.stdout, "HTTP/1.1 101 Switching Protocols\nhello\n");
        let done = web.agent("talker").run(&words("/secret"))?.ok()?;
        assert_eq!(done.stdout, "HTTP/1.1 403 Forbidden\n");
        Ok(())
    })
}
