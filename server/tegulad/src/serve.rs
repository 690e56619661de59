//! Serving: what the configuration asks for is opened, put together, and kept going until the end is asked for.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use tegula_api::{App, Parts, RandomIds};
use tegula_catalog::content::Content;
use tegula_catalog::rules::{LoadedRules, RuleWatch, RulesError};
use tegula_catalog::service::{Service, TransferError, TransferSettings, Transfers};
use tegula_domain::ImageId;
use tegula_engine::{Clock, Engine, SystemClock};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::access::RequestsToLog;
use crate::config::Config;
use crate::identity::{self, Known};
use crate::log::Log;
use crate::signals::Signals;
use crate::store::Claim;
use crate::tls::Tls;
use crate::{collecting, database, notify, rules, settings, store};

/// How often the files of the rules are looked at. What changed is read at the second look that finds it so.
const RULES_EVERY: Duration = Duration::from_secs(2);

/// What may be asked of a server that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To end, after what is under way.
    End,
    /// To read files again.
    Reload,
}

/// Whoever may ask.
pub(crate) trait Asking {
    /// Waits until something is asked for.
    async fn next(&mut self) -> Asked;

    /// Goes on for as long as the server needs to end; it is dropped then.
    async fn while_ending(self);
}

/// Serves until a signal asks for the end.
///
/// # Errors
/// If something that the configuration names is not to be had. Nothing was served then.
pub(crate) fn run(config: &Config) -> Result<(), Box<dyn Error>> {
    let _log = Log::start(&config.log, io::stderr())?;
    let mut ready = Ready::open(config)?;
    let runtime = runtime(config)?;
    runtime.block_on(async {
        let (signals, listener) = (Signals::watch()?, listen(config).await?);
        announce(listener.local_addr()?, ready.tls.is_some(), &ready.known)?;
        if let Err(error) = notify::tell("READY=1") {
            warn!("the service manager cannot be told that the server is ready: {error}");
        }
        ready.serve(listener, signals).await;
        Ok(())
    })
}

/// The threads on which requests are served.
///
/// # Errors
/// If they are not to be had.
pub(crate) fn runtime(config: &Config) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(config.limits.workers_max.into())
        .thread_name("tegulad")
        .build()
}

/// Listens where the configuration says.
///
/// # Errors
/// If the address is not to be had; the text names it.
pub(crate) async fn listen(config: &Config) -> Result<TcpListener, String> {
    TcpListener::bind(config.listen.address)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen.address))
}

/// A server with all that it needs but a socket. The store is let go of last.
#[derive(Debug)]
pub(crate) struct Ready<'a> {
    config: &'a Config,
    app: App,
    service: Service,
    watch: RuleWatch,
    tls: Option<Tls>,
    pub(crate) known: Known,
    _hashing: Hashing,
    _claim: Claim,
}

impl<'a> Ready<'a> {
    /// Opens what the configuration names, and makes good what a crash left.
    ///
    /// # Errors
    /// If something is not to be had.
    pub(crate) fn open(config: &'a Config) -> Result<Self, Box<dyn Error>> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let settings = settings::settings(config)?;
        let tls = Tls::load(config)?;
        let (loaded, watch) = RuleWatch::start(rules::files(config))
            .map_err(|error| rules::refused(config, &error))?;
        warn_of(&loaded);
        let claim = store::claim(config)?;
        let known = identity::known(config, &clock)?;
        let engine = store::open(config)?;
        let collected = engine.clone();
        let catalog = database::open(config)?;
        let service = Service::new(
            catalog,
            loaded.rules,
            Arc::clone(&clock),
            Arc::new(random_id),
            settings::limits(config),
        );
        let transfers = transfers(config, &service, engine);
        // Before anything is made good: with another's store that would be a loss.
        transfers.own_store().map_err(|error| {
            let path = config.store.path.display();
            format!(
                "`store.path`, {path}, and `database.url`: {}",
                crate::chain(&error)
            )
        })?;
        recover(&transfers)?;
        let hashing = Hashing::start(&transfers)?;
        collecting::start(config, &collected)?;
        let app = App::new(Parts {
            transfers,
            identity: known.identity.clone(),
            settings,
            log: Arc::new(RequestsToLog {
                all: config.log.access,
            }),
            clock,
            random_ids: RandomIds(random_id),
        });
        Ok(Self {
            config,
            app,
            service,
            watch,
            tls,
            known,
            _hashing: hashing,
            _claim: claim,
        })
    }

    /// Serves until the end is asked for, and lets requests under way end. Returns how many connections did not in time, and
    /// were cut off.
    pub(crate) async fn serve(&mut self, listener: TcpListener, mut asking: impl Asking) -> usize {
        let tls = self.tls.as_ref();
        let (end, ended) = oneshot::channel();
        let serving = self.app.serve(listener, tls.map(Tls::config), async {
            // Serving also ends if nobody is there any more who may ask.
            let _ = ended.await;
        });
        let watching = async {
            loop {
                match tokio::time::timeout(RULES_EVERY, asking.next()).await {
                    Ok(Asked::Reload) => {
                        put_in_force(self.config, &self.service, self.watch.reload());
                        reload_certificate(tls);
                    }
                    Ok(Asked::End) => break,
                    Err(_) => {
                        if let Some(read) = self.watch.poll() {
                            put_in_force(self.config, &self.service, read);
                        }
                    }
                }
            }
            info!("ending: no more connections are taken, those under way may end");
            // Serving has ended already if it is not there.
            let _ = end.send(());
            asking.while_ending().await;
        };
        let drained = tokio::select! {
            drained = serving => drained,
            () = watching => return 0,
        };
        match drained.cut_off {
            0 => info!("ended"),
            connections => warn!(connections, "ended: connections were cut off"),
        }
        drained.cut_off
    }
}

/// The use cases that move bytes.
fn transfers(config: &Config, service: &Service, engine: Engine) -> Transfers {
    let settings = TransferSettings {
        store: config.store.id.clone(),
        gather_in: config.store.path.clone(),
        ..TransferSettings::default()
    };
    Transfers::new(service.clone(), Content::new(engine), settings)
}

/// Makes good what a crash left, before anybody asks.
fn recover(transfers: &Transfers) -> Result<(), TransferError> {
    let recovered = transfers.recover()?;
    for id in &recovered.queued {
        warn!(%id, "the bytes of this image did not arrive before the server ended: it is queued again");
    }
    for id in &recovered.removed {
        info!(%id, "bytes that belong to no image were removed");
    }
    Ok(())
}

/// The thread that computes hashes which nobody waits for; it ends with this value.
#[derive(Debug)]
struct Hashing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hashing {
    fn start(transfers: &Transfers) -> io::Result<Self> {
        let (transfers, stop) = (transfers.clone(), Arc::new(AtomicBool::new(false)));
        let stopping = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("hashes".to_owned())
            .spawn(move || {
                transfers.hash_in_background(&stopping, &|id, error| {
                    let id = id.map(ToString::to_string);
                    error!(id, "hashes could not be computed: {}", crate::chain(error));
                });
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // If it panicked, that is in the log.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Tells people where it listens and how they get in; programs read the log.
fn announce(address: SocketAddr, tls: bool, known: &Known) -> io::Result<()> {
    let scheme = if tls { "https" } else { "http" };
    info!(%address, tls, "listening");
    let mut output = io::stdout().lock();
    writeln!(
        output,
        "tegulad serves the Images API at {scheme}://{address}"
    )?;
    if let Some(token) = &known.admin_token {
        if token.was_made() {
            writeln!(
                output,
                "The administrator's token, shown this once: {}",
                token.reveal()
            )?;
        }
        writeln!(
            output,
            "The administrator's token is kept in {}",
            token.path().display()
        )?;
    }
    if known.open {
        writeln!(
            output,
            "Access is open on loopback: whoever can connect from this machine is the administrator."
        )?;
    }
    output.flush()
}

/// Puts in force the rules that were read again. What cannot be used is said, and the old ones stay.
fn put_in_force(config: &Config, service: &Service, read: Result<LoadedRules, RulesError>) {
    match read {
        Ok(loaded) => {
            warn_of(&loaded);
            service.set_rules(loaded.rules);
            info!("policy and property protections were read again");
        }
        Err(error) => {
            let error = rules::refused(config, &error);
            error!("the rules from before stay in force: {error}");
        }
    }
}

/// Says what an operator should look at in the rules.
fn warn_of(loaded: &LoadedRules) {
    loaded
        .warnings
        .iter()
        .for_each(|warning| warn!("{warning}"));
}

/// Reads the certificate again. What cannot be used is said, and the old one stays.
fn reload_certificate(tls: Option<&Tls>) {
    match tls.map(Tls::reload) {
        Some(Ok(())) => info!("the certificate was read again"),
        Some(Err(error)) => error!("the certificate from before stays in use: {error}"),
        None => {}
    }
}

/// A random id (a version 4 UUID).
fn random_id() -> ImageId {
    let mut bytes = [0; 16];
    // Up to 256 bytes come at once, once the system has gathered any randomness, which it waits for (getrandom(2)).
    let filled = getrandom(&mut bytes, GetRandomFlags::empty())
        .expect("because getrandom(2) of 16 bytes cannot fail");
    assert_eq!(
        filled,
        bytes.len(),
        "because getrandom(2) of 16 bytes gives them all"
    );
    ImageId::from_random(bytes)
}
