use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use llm_engine_gateway::{DeploymentSetup, PolicySetup, RouteStatus, WorkerSetup};
use scripted_upstream::Exchange;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};
use tokio::task::AbortHandle;

use crate::harness::{World, settle};

/// A gateway whose model `m` is a worker: a shell script for its process, and the scripted upstream behind its sockets.
///
/// The script gets the socket's path as `$2`, and appends a line to the journal with `echo … >> "$JOURNAL"`.
pub(crate) struct WorkerWorld {
    pub(crate) world: World,
    folder: TempDir,
    sockets: Vec<Socket>,
    address: String,
}

/// A socket of the worker; dropped, nobody listens there any more.
struct Socket(AbortHandle);

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How long real processes may take for what they do at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A worker that runs until it is told to end.
pub(crate) const WELL: &str = r#"echo $$ >> "$JOURNAL"; exec cat"#;

impl WorkerWorld {
    pub(crate) async fn start(script: &str) -> Self {
        Self::with(script, None).await
    }

    /// With these policies instead of the one that counts everything.
    pub(crate) async fn with(script: &str, policies: Option<Vec<PolicySetup>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "exec 2>/dev/null; cd '{}'; JOURNAL=journal; echo \"$2\" >> sockets; {script}",
            folder.path().display()
        );
        let mut address = String::new();
        let world = World::with(|setup| {
            address = crate::harness::remote(setup).url.clone();
            setup.models[0].deployments[0] = DeploymentSetup::Worker(WorkerSetup {
                program: PathBuf::from("/bin/sh"),
                arguments: ["-c", &script, "sh"].map(Into::into).into(),
                is_adaptive: false,
            });
            setup.socket_folder = folder.path().to_owned();
            if let Some(policies) = policies {
                setup.policies = policies;
            }
        })
        .await;
        Self {
            world,
            folder,
            sockets: Vec::new(),
            address,
        }
    }

    /// A worker that has loaded its model.
    pub(crate) async fn ready(policies: Option<Vec<PolicySetup>>) -> Self {
        let mut this = Self::with(WELL, policies).await;
        this.load(0).await;
        this
    }

    /// The socket that the worker of that start was told to listen on.
    pub(crate) async fn socket(&self, start: usize) -> PathBuf {
        lines(&self.folder.path().join("sockets"), start + 1)
            .await
            .remove(start)
            .into()
    }

    /// Has the worker of that start load its model: it listens, and says that it is well.
    pub(crate) async fn load(&mut self, start: usize) {
        self.listen(start).await;
        // The next look at its health.
        tokio::time::advance(Duration::from_millis(21)).await;
        let health = self.world.upstream.next().await;
        assert_eq!(health.path, "/health");
        health.answer(200, &[], json!({}));
        settle().await;
    }

    async fn listen(&mut self, start: usize) {
        let listener = UnixListener::bind(self.socket(start).await).unwrap();
        let address = self
            .address
            .trim_start_matches("http://")
            .trim_end_matches("/v1")
            .to_owned();
        let bridge = tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let address = address.clone();
                tokio::spawn(async move {
                    let mut there = TcpStream::connect(address).await.unwrap();
                    let _ = copy_bidirectional(&mut here, &mut there).await;
                });
            }
        });
        self.sockets.push(Socket(bridge.abort_handle()));
    }

    /// Whether the route can answer; a worker that is asked says that it is well.
    pub(crate) async fn status(&mut self) -> RouteStatus {
        let route = self.world.route();
        let mut status = std::pin::pin!(route.status());
        loop {
            tokio::select! {
                status = &mut status => return status,
                health = self.world.upstream.next() => health.answer(200, &[], json!({})),
            }
        }
    }

    /// Waits for something that a process does, in its own time.
    pub(crate) async fn until(&mut self, expected: RouteStatus) {
        let begun = std::time::Instant::now();
        while self.status().await != expected {
            assert!(begun.elapsed() < PATIENCE, "it never is {expected:?}");
            tokio::task::yield_now().await;
        }
    }

    /// The lines that the script has written, as soon as there are so many.
    pub(crate) async fn journal(&self, count: usize) -> Vec<String> {
        lines(&self.folder.path().join("journal"), count).await
    }

    /// What the worker is asked next; asserts the path.
    pub(crate) async fn asked(&mut self, path: &str) -> Exchange {
        let exchange = self.world.upstream.next().await;
        assert_eq!(exchange.path, path);
        exchange
    }
}

/// The lines of a file that processes write, as soon as there are so many.
pub(crate) async fn lines(path: &Path, count: usize) -> Vec<String> {
    let begun = std::time::Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count && (text.is_empty() || text.ends_with('\n')) {
            return text.lines().map(str::to_owned).collect();
        }
        assert!(begun.elapsed() < PATIENCE, "only {text:?}");
        tokio::task::yield_now().await;
    }
}

pub(crate) fn is_socket(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|found| found.file_type().is_socket())
}

pub(crate) fn is_running(process_id: &str) -> bool {
    Path::new("/proc").join(process_id).exists()
}

/// Kills a process that the test's worker runs as.
pub(crate) async fn kill(process_id: &str) {
    let kill = tokio::process::Command::new("kill")
        .args(["-9", process_id])
        .status();
    assert!(kill.await.unwrap().success());
}
