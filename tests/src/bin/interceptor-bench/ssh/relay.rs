//! The least that a proxy of SSH does: a server and a client of the library that
//! Interceptor has as well, and everything passed on between them. Nothing is read,
//! judged, masked or recorded.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::sshd::Sshd;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, load_secret_key};
use russh::server::{self, Auth, ChannelOpenHandle, Session};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client};
use tokio::net::{TcpListener, TcpStream};

/// Where the relay leads, and as whom.
#[derive(Clone)]
pub(super) struct To {
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) key: Arc<PrivateKey>,
}

impl To {
    pub(super) fn new(sshd: &Sshd, port: u16) -> Result<Self> {
        Ok(Self {
            port,
            user: sshd.user.clone(),
            key: Arc::new(load_secret_key(&sshd.key, None)?),
        })
    }

    /// A client that is logged on.
    pub(super) async fn client(&self) -> Result<client::Handle<AnyKey>> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        tcp.set_nodelay(true)?;
        let config = Arc::new(client::Config {
            preferred: preferred(),
            ..client::Config::default()
        });
        let mut handle = client::connect_stream(config, tcp, AnyKey).await?;
        // What takes anybody is asked for nothing.
        if handle.authenticate_none(&self.user).await?.success() {
            return Ok(handle);
        }
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&self.key), None);
        let done = handle.authenticate_publickey(&self.user, key).await?;
        anyhow::ensure!(done.success(), "the key was not taken");
        Ok(handle)
    }
}

/// A client that takes any host for whom it says it is.
pub(super) struct AnyKey;

impl client::Handler for AnyKey {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Serves in this very process; gives the port.
pub(super) fn serve(sshd: &Sshd) -> Result<u16> {
    let to = To::new(sshd, sshd.port)?;
    // Another key than the server's would cost the same; this one is there.
    let key = load_secret_key(&sshd.key, None)?;
    let config = Arc::new(server::Config {
        keys: vec![key],
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        inactivity_timeout: None,
        preferred: preferred(),
        ..server::Config::default()
    });
    let runtime = tokio::runtime::Runtime::new()?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (config, to) = (Arc::clone(&config), to.clone());
                tokio::spawn(async move {
                    tcp.set_nodelay(true)?;
                    let handler = Relay { to, origin: None };
                    let session = server::run_stream(config, tcp, handler).await?;
                    session.await?;
                    anyhow::Ok(())
                });
            }
        });
    });
    Ok(port)
}

/// The cipher that every road has, and the library does not offer by itself.
fn preferred() -> russh::Preferred {
    russh::Preferred {
        cipher: vec![russh::cipher::AES_128_GCM].into(),
        ..russh::Preferred::default()
    }
}

struct Relay {
    to: To,
    origin: Option<client::Handle<AnyKey>>,
}

impl server::Handler for Relay {
    type Error = anyhow::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth> {
        self.origin = Some(self.to.client().await?);
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        agent: Channel<server::Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<()> {
        let origin = self.origin.as_ref().context("nobody logged on")?;
        let origin = origin.channel_open_session().await?;
        let handle = session.handle();
        let (from_agent, to_agent) = agent.split();
        let (from_origin, to_origin) = origin.split();
        tokio::spawn(async move {
            reply.accept().await;
            tokio::join!(up(from_agent, to_origin), async {
                let done = down(from_origin, &to_agent, &handle).await;
                let _ = to_agent.close().await;
                done
            })
        });
        Ok(())
    }
}

async fn up(mut from: ChannelReadHalf, to: ChannelWriteHalf<client::Msg>) -> Result<()> {
    while let Some(said) = from.wait().await {
        match said {
            ChannelMsg::Data { data } => to.data_bytes(data).await?,
            ChannelMsg::Eof => to.eof().await?,
            ChannelMsg::Exec { command, .. } => to.exec(true, command).await?,
            ChannelMsg::RequestShell { .. } => to.request_shell(true).await?,
            ChannelMsg::RequestPty {
                term,
                col_width,
                row_height,
                pix_width,
                pix_height,
                terminal_modes,
                ..
            } => {
                let (columns, rows) = (col_width, row_height);
                let modes = &terminal_modes;
                to.request_pty(true, &term, columns, rows, pix_width, pix_height, modes)
                    .await?;
            }
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    let _ = to.close().await;
    Ok(())
}

async fn down(
    mut from: ChannelReadHalf,
    to: &ChannelWriteHalf<server::Msg>,
    handle: &server::Handle,
) -> Result<()> {
    let gone = |()| anyhow::anyhow!("the agent is gone");
    while let Some(said) = from.wait().await {
        match said {
            ChannelMsg::Data { data } => to.data_bytes(data).await?,
            ChannelMsg::ExtendedData { data, ext } => to.extended_data_bytes(ext, data).await?,
            ChannelMsg::Eof => to.eof().await?,
            ChannelMsg::Success => handle.channel_success(to.id()).await.map_err(gone)?,
            ChannelMsg::Failure => handle.channel_failure(to.id()).await.map_err(gone)?,
            ChannelMsg::ExitStatus { exit_status } => to.exit_status(exit_status).await?,
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    Ok(())
}
