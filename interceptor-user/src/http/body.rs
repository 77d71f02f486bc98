//! Bodies on their way: fed by an exchange, drained by hyper.
//!
//! One part is under way at a time, so a slow reader slows its writer. A body ends
//! by saying so; one whose feeder is gone before that is broken, and hyper breaks
//! the message off where the reader sees it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// A part of a body.
#[derive(Debug)]
pub enum Part {
    /// Some of its bytes.
    Data(Bytes),
    /// Its end, with trailers.
    End(Option<HeaderMap>),
    /// It is broken off.
    Broken,
}

/// The message was broken off on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message was broken off")]
pub struct Broken;

/// What moves an exchange on; polled while its answer is wanted.
pub type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body that an exchange feeds.
pub struct Fed {
    whole: Option<Bytes>,
    parts: Option<mpsc::Receiver<Part>>,
    driver: Option<Driver>,
}

impl std::fmt::Debug for Fed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fed")
            .field("is_driven", &self.driver.is_some())
            .finish_non_exhaustive()
    }
}

impl Fed {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            whole: None,
            parts: None,
            driver: None,
        }
    }

    /// A body that is there already.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        let mut body = Self::empty();
        body.whole = (!bytes.is_empty()).then_some(bytes);
        body
    }

    /// A body, and where to feed it.
    #[must_use]
    pub fn channel() -> (mpsc::Sender<Part>, Self) {
        let (feed, parts) = mpsc::channel(1);
        let body = Self {
            whole: None,
            parts: Some(parts),
            driver: None,
        };
        (feed, body)
    }

    /// With what feeds it, which goes on only while the body is read.
    #[must_use]
    pub fn driven_by(mut self, driver: Driver) -> Self {
        if self.parts.is_some() {
            self.driver = Some(driver);
        }
        self
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        let Some(parts) = &mut self.parts else {
            return Poll::Ready(Part::End(None));
        };
        if let Some(driver) = &mut self.driver {
            if let Ok(part) = parts.try_recv() {
                return Poll::Ready(part);
            }
            if driver.as_mut().poll(cx).is_ready() {
                self.driver = None;
            }
        }
        Poll::Ready(ready!(parts.poll_recv(cx)).unwrap_or(Part::Broken))
    }
}

impl Body for Fed {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if let Some(whole) = this.whole.take() {
            return Poll::Ready(Some(Ok(Frame::data(whole))));
        }
        if this.parts.is_none() {
            return Poll::Ready(None);
        }
        let part = ready!(this.poll_part(cx));
        Poll::Ready(match part {
            Part::Data(bytes) => Some(Ok(Frame::data(bytes))),
            Part::End(trailers) => {
                this.parts = None;
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Part::Broken => {
                this.parts = None;
                Some(Err(Broken))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_none() && self.whole.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.parts, &self.whole) {
            (None, None) => SizeHint::with_exact(0),
            (None, Some(whole)) => SizeHint::with_exact(whole.len() as u64),
            (Some(_), _) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_body_ends_only_where_that_was_said() {
        let (feed, body) = Fed::channel();
        let fed = tokio::spawn(async move {
            feed.send(Part::Data(Bytes::from_static(b"half")))
                .await
                .unwrap();
            feed.send(Part::End(None)).await.unwrap();
        });
        assert_eq!(body.collect().await.unwrap().to_bytes(), "half");
        fed.await.unwrap();

        let (feed, body) = Fed::channel();
        let fed = tokio::spawn(async move {
            feed.send(Part::Data(Bytes::from_static(b"half")))
                .await
                .unwrap();
        });
        assert_eq!(body.collect().await.err(), Some(Broken));
        fed.await.unwrap();
    }

    #[tokio::test]
    async fn what_drives_a_body_goes_on_while_it_is_read() {
        let (feed, body) = Fed::channel();
        let driver = async move {
            for _ in 0..3 {
                feed.send(Part::Data(Bytes::from_static(b"x")))
                    .await
                    .unwrap();
            }
            feed.send(Part::End(None)).await.unwrap();
        };
        let body = body.driven_by(Box::pin(driver));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "xxx");
    }
}
