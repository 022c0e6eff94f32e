//! The handshake with an endpoint, before any HTTP.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage, OtherError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::config::model::EndpointAddress;
use crate::error::{Error, Reason};
use crate::identity::{ClientTls, Offer};
use crate::runtime::stream::Stream;
use crate::runtime::tls_stream::TlsStream;

/// A connection to an endpoint that is who it should be.
pub(crate) struct Secured {
    pub(crate) stream: Stream,
    /// The endpoint has chosen HTTP/2.
    pub(crate) http2: bool,
}

/// Shakes hands before `until`.
///
/// # Errors
/// `tls_error`, or `connect_timeout`.
pub(crate) async fn secure(
    stream: Stream,
    tls: &ClientTls,
    offer: Offer,
    address: &EndpointAddress,
    until: Option<Instant>,
) -> Result<Secured, Error> {
    let ip = match address {
        EndpointAddress::Tcp(address) => Some(address.ip()),
        EndpointAddress::Unix(_) => None,
    };
    let shaking = TlsConnector::from(tls.config(offer)).connect(tls.server_name(ip), stream);
    let shaken = match until {
        None => shaking.await,
        Some(until) => match tokio::time::timeout_at(until, shaking).await {
            Ok(shaken) => shaken,
            Err(_) => return Err(Error::upstream(Reason::ConnectTimeout).unsent().because("in the TLS handshake")),
        },
    };
    let failed =
        |error: Box<dyn std::error::Error + Send + Sync>| Error::upstream(Reason::TlsError).unsent().because(error);
    let secured = shaken.map_err(|error| match error.downcast::<TlsError>() {
        Ok(error) => failed(in_words(error)),
        Err(error) => failed(format!("the endpoint ended the TLS handshake: {error}").into()),
    })?;
    let http2 = match (secured.get_ref().1.alpn_protocol(), offer) {
        (Some(chosen), _) => chosen == b"h2",
        // Whoever knows no ALPN speaks what the configuration says, or what all understand.
        (None, offer) => offer == Offer::Http2,
    };
    let mut stream = Stream::Tls(Box::new(TlsStream::new(secured)));
    if http2 && tls.shows_certificate() {
        // In TLS 1.3 we are done before the endpoint has seen our certificate. HTTP/2 endpoints speak at once (RFC 9113,
        // section 3.4), or say why they do not.
        let waiting = std::future::poll_fn(|cx| stream.poll_readable(cx));
        let heard = match until {
            None => waiting.await,
            Some(until) => tokio::time::timeout_at(until, waiting).await.unwrap_or(Ok(())),
        };
        heard.map_err(|error| failed(error.into()))?;
    }
    Ok(Secured { stream, http2 })
}

/// What rustls says, where a person would say it in another way.
fn in_words(error: TlsError) -> Box<dyn std::error::Error + Send + Sync> {
    match &error {
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => "the endpoint does not speak TLS".into(),
        // Said by our own verifier.
        TlsError::InvalidCertificate(CertificateError::Other(OtherError(words))) => words.to_string().into(),
        TlsError::AlertReceived(AlertDescription::CertificateRequired) => {
            "the endpoint asks for a certificate; `tls.cert_file` and `tls.key_file` show one".into()
        }
        _ => error.into(),
    }
}

/// True where an alert says that the handshake came to nothing, which an endpoint says before it looks at anything else.
/// Others can come at any time.
fn ends_handshake(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::HandshakeFailure
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
            | AlertDescription::UnrecognisedName
            | AlertDescription::CertificateRequired
            | AlertDescription::NoApplicationProtocol
    )
}

/// A stream that remembers what HTTP/2 does not tell whoever uses it.
pub(super) struct Overheard {
    stream: Stream,
    heard: Rc<Heard>,
}

/// What an [`Overheard`] remembers.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Why the endpoint refused us.
    pub(super) refusal: Cell<Option<AlertDescription>>,
    /// It has spoken; its first words are its SETTINGS (RFC 9113, section 3.4).
    pub(super) anything: Cell<bool>,
    /// Who waits for that.
    pub(super) waiting: RefCell<Option<Waker>>,
}

impl Overheard {
    pub(super) fn new(stream: Stream) -> (Self, Rc<Heard>) {
        let heard = Rc::<Heard>::default();
        (Overheard { stream, heard: heard.clone() }, heard)
    }
}

impl AsyncRead for Overheard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        match &read {
            Poll::Ready(Ok(())) => {
                if !this.heard.anything.replace(true)
                    && let Some(waker) = this.heard.waiting.take()
                {
                    waker.wake();
                }
            }
            Poll::Ready(Err(error)) => this.heard.refusal.set(alert(error)),
            Poll::Pending => {}
        }
        read
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// What a failure to read is: `tls_error` where the endpoint does not like our certificate, which with TLS 1.3 comes to
/// light only here. It has then not looked at the request.
pub(super) fn refusal(error: &io::Error) -> Option<Error> {
    alert(error).map(refused_by)
}

pub(super) fn refused_by(alert: AlertDescription) -> Error {
    Error::upstream(Reason::TlsError).unsent().because(in_words(TlsError::AlertReceived(alert)))
}

fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<TlsError>()? {
        TlsError::AlertReceived(alert) if ends_handshake(*alert) => Some(*alert),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_alerts_of_the_handshake_say_that_nobody_has_looked_at_the_request() {
        let refused = |alert| refusal(&std::io::Error::other(TlsError::AlertReceived(alert))).is_some();
        assert!(refused(AlertDescription::CertificateRequired) && refused(AlertDescription::UnknownCA));
        assert!(!refused(AlertDescription::InternalError) && !refused(AlertDescription::UserCanceled));
        assert!(refusal(&std::io::Error::other(TlsError::DecryptError)).is_none());
    }
}
