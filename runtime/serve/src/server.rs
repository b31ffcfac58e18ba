//! Connections: how many there may be, how slow they may be, and how they end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use axum::Router;
use futures_util::future::{Either, select};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use linc_data::Tokenizer;
use linc_infer::{Engine, ScorePrograms};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Sleep, sleep, timeout};

use crate::completion::Limits;
use crate::error::ServeError;
use crate::metrics::Metrics;
use crate::routes::{Shared, now, router};
use crate::worker::Worker;

/// How often it is looked whether the server is to end.
const LOOK: Duration = Duration::from_millis(50);
/// How long a client may take to send the head of a request, or to begin the next one.
const HEAD: Duration = Duration::from_secs(30);
/// How long a client may read nothing of an answer, and how long it may go on reading when the answer's time is over.
const UNREAD: Duration = Duration::from_secs(60);

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens; with port 0 the system chooses one.
    pub address: SocketAddr,
    /// What the model is called.
    pub name: String,
    /// Requests that may wait for the model.
    pub queue: usize,
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// Bytes that the body of a request may have.
    pub body: usize,
    /// Time that a completion may take.
    pub time: Duration,
    /// What `Authorization: Bearer` must say, if anything.
    pub token: Option<String>,
}

/// A model that is ready to answer.
pub struct Served<'a> {
    /// Continues prompts.
    pub engine: Engine<'a>,
    /// Says how likely prompts are; programs of the engine's session.
    pub scores: ScorePrograms,
    /// Of the model.
    pub tokenizer: Arc<Tokenizer>,
    /// Number of tokens of the model.
    pub vocab: usize,
}

/// Answers requests until `stop` is set; then what runs is finished, and no other request is taken. `listening` hears where.
///
/// # Errors
/// [`ServeError::Listen`] if the address cannot be had, [`ServeError::Infer`] if the model cannot go on.
pub fn serve(
    model: Served<'_>,
    settings: &Settings,
    stop: &AtomicBool,
    listening: &mut dyn FnMut(SocketAddr),
) -> Result<(), ServeError> {
    let refused = |error: &io::Error| listen_error(settings.address, error);
    let listener = TcpListener::bind(settings.address).map_err(|e| refused(&e))?;
    listener.set_nonblocking(true).map_err(|e| refused(&e))?;
    let address = listener.local_addr().map_err(|e| refused(&e))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|e| refused(&e))?;
    let (jobs, queue) = mpsc::sync_channel(settings.queue.max(1));
    let metrics = Arc::new(Metrics::default());
    let ending = Arc::new(AtomicBool::new(false));
    let Served { engine, scores, tokenizer, vocab } = model;
    let shared = Arc::new(Shared {
        tokenizer,
        limits: Limits { model: settings.name.clone(), context: engine.context(), vocab },
        slots: engine.sequences(),
        body: settings.body,
        time: settings.time,
        token: settings.token.clone(),
        is_local: address.ip().is_loopback(),
        jobs,
        metrics: Arc::clone(&metrics),
        ending: Arc::clone(&ending),
        count: AtomicU64::new(0),
        started: now(),
    });
    listening(address);
    // Set when no connection is left that could send a job, or when the model cannot do any.
    let (is_over, has_failed) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut worker = Worker::new(engine, scores, metrics);
    thread::scope(|scope| {
        let connections = thread::Builder::new().name("linc-serve".into()).spawn_scoped(scope, || {
            let _over = SetAtEnd(&is_over);
            let ends = || stop.load(Ordering::SeqCst) || has_failed.load(Ordering::SeqCst);
            runtime.block_on(accept(listener, router(shared), settings, &ending, &ends));
            // Whoever still reads a text apart is not waited for.
            runtime.shutdown_background();
        });
        let connections = connections.map_err(|e| refused(&e))?;
        let done = worker.run(&queue, &is_over);
        // Jobs that are still there hear that nobody does them.
        drop((worker, queue));
        has_failed.store(done.is_err(), Ordering::SeqCst);
        let connected = connections.join();
        done?;
        connected.map_err(|_| ServeError::Connections)
    })
}

/// Sets a flag when it is dropped, by a panic as well: whoever waits for the flag would wait for ever.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn listen_error(address: SocketAddr, error: &io::Error) -> ServeError {
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there: give another --port, or 0 for any that is free"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 are the administrator's: give another --port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: give another --host",
        _ => "give another --host or --port",
    };
    ServeError::Listen {
        address: address.to_string(),
        reason: linc_device::words::reason(error),
        help: help.to_owned(),
    }
}

/// Takes connections until it is to end, and then waits for those that are there.
async fn accept(
    listener: TcpListener,
    router: Router,
    settings: &Settings,
    ending: &AtomicBool,
    ends: &dyn Fn() -> bool,
) {
    // Only fails where there is no runtime.
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let permits = Arc::new(Semaphore::new(settings.connections.max(1)));
    let (close, closing) = watch::channel(false);
    while !ends() {
        let Ok(permit) = timeout(LOOK, Arc::clone(&permits).acquire_owned()).await else { continue };
        let stream = loop {
            match timeout(LOOK, listener.accept()).await {
                Ok(Ok((stream, _))) => break Some(stream),
                // A client that went away before it was taken, or no more files for now.
                Ok(Err(_)) => sleep(LOOK).await,
                Err(_) => {}
            }
            if ends() {
                break None;
            }
        };
        let Some(stream) = stream else { break };
        let (router, closing) = (router.clone(), closing.clone());
        let stream = Impatient::new(stream, UNREAD, settings.time + UNREAD);
        tokio::spawn(async move {
            converse(stream, router, closing).await;
            drop(permit);
        });
    }
    ending.store(true, Ordering::SeqCst);
    drop(listener);
    // Idle connections end at once, others when they have their answer.
    let _ = close.send(true);
    let all = u32::try_from(settings.connections.max(1)).unwrap_or(u32::MAX);
    let _ = timeout(settings.time + UNREAD, permits.acquire_many(all)).await;
}

/// Answers the requests of one connection.
async fn converse(stream: Impatient, router: Router, mut closing: watch::Receiver<bool>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let closed = match select(connection.as_mut(), pin!(closing.wait_for(|closing| *closing))).await {
        Either::Left((_, _)) => true,
        Either::Right((_, _)) => false,
    };
    if !closed {
        connection.as_mut().graceful_shutdown();
        // What goes wrong on a connection is its client's to know.
        let _ = connection.await;
    }
}

/// A connection that ends when its client reads nothing for too long, or takes too long to read an answer.
struct Impatient {
    stream: TcpStream,
    unread: Duration,
    whole: Duration,
    /// Until when the client must read something, while it does not.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Until when it must have read all, since it first was too slow for an answer; until its next request.
    lagging: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(stream: TcpStream, unread: Duration, whole: Duration) -> Self {
        Impatient { stream, unread, whole, waiting: None, lagging: None }
    }

    fn within_time<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let Impatient { unread, whole, waiting, lagging, .. } = self;
        let waiting = waiting.get_or_insert_with(|| Box::pin(sleep(*unread)));
        let lagging = lagging.get_or_insert_with(|| Box::pin(sleep(*whole)));
        match (waiting.as_mut().poll(cx), lagging.as_mut().poll(cx)) {
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            (Poll::Ready(()), _) | (_, Poll::Ready(())) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            self.lagging = None;
        }
        polled
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.within_time(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.within_time(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.within_time(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_reads_a_little_now_and_then_is_left() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let slow = thread::spawn(move || {
                let mut client = std::net::TcpStream::connect(address).expect("a connection");
                let mut bytes = vec![0; 1 << 18];
                while io::Read::read(&mut client, &mut bytes).is_ok_and(|n| n > 0) {
                    thread::sleep(Duration::from_millis(100));
                }
            });
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut stream = Impatient::new(stream, Duration::from_secs(20), Duration::from_millis(500));
            let answer = vec![0; 1 << 20];
            let write = async {
                loop {
                    std::future::poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, &answer)).await?;
                }
            };
            let ended: Result<io::Result<()>, _> = timeout(Duration::from_secs(10), write).await;
            assert_eq!(ended.expect("ends").expect_err("in time").kind(), io::ErrorKind::TimedOut);
            drop(stream);
            slow.join().expect("the client ends");
        });
    }

    #[test]
    fn a_thread_that_panics_is_over() {
        let is_over = AtomicBool::new(false);
        let ended = thread::scope(|scope| {
            let connections = scope.spawn(|| {
                let _over = SetAtEnd(&is_over);
                // As too large numbers of connections do.
                Semaphore::new(usize::MAX)
            });
            connections.join().is_err()
        });
        assert!(ended && is_over.load(Ordering::SeqCst));
    }
}
