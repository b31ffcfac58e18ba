//! The user's command for alerts. It runs beside the training, which never waits for it but at the end of a run, and not longer
//! than its time limit.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Alert;

/// Commands that may run at once; further alerts find the command busy.
const AT_ONCE: usize = 4;
/// How often the end of a command is looked for while nothing else is done.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Running {
    child: Child,
    begun: Instant,
    /// Time that it may take.
    limit: Duration,
}

/// A command of the shell, with the alert in its environment.
#[derive(Debug)]
pub(super) struct Hook {
    command: String,
    run: PathBuf,
    limit: Duration,
    running: Vec<Running>,
}

impl Hook {
    pub(super) fn new(command: String, run: &Path, limit: Duration) -> Self {
        Hook { command, run: run.to_path_buf(), limit, running: vec![] }
    }

    /// Starts the command; what is wrong, if it cannot be.
    pub(super) fn run(&mut self, alert: &Alert) -> Option<String> {
        if self.running.len() >= AT_ONCE {
            return Some(format!("alerts.command is not run: {AT_ONCE} of them are still running"));
        }
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &self.command])
            .env("LINC_ALERT_LEVEL", alert.level.word())
            .env("LINC_ALERT_KIND", alert.kind.word())
            .env("LINC_ALERT_STEP", alert.step.to_string())
            .env("LINC_ALERT_MESSAGE", &alert.message)
            .env("LINC_RUN", &self.run)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // A group of its own: Ctrl-C is for the run, and what the shell starts can be ended with it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        match command.spawn() {
            Ok(child) => {
                self.running.push(Running { child, begun: Instant::now(), limit: self.limit });
                None
            }
            Err(error) => Some(format!("alerts.command cannot be run: {error}")),
        }
    }

    /// What became of commands that have ended, or that took too long and are ended now, where that is not well.
    pub(super) fn ended(&mut self) -> Vec<String> {
        let mut lines = vec![];
        self.running.retain_mut(|running| match running.child.try_wait() {
            Ok(None) if running.begun.elapsed() < running.limit => true,
            Ok(None) => {
                linc_device::process::kill_group(running.child.id());
                // Now it has ended.
                let _ = running.child.wait();
                let seconds = tenths(running.limit);
                lines.push(format!("alerts.command was ended: it took longer than {seconds} s"));
                false
            }
            Ok(Some(status)) => {
                if !status.success() {
                    lines.push(format!("alerts.command failed: {status}"));
                }
                false
            }
            Err(error) => {
                lines.push(format!("alerts.command cannot be waited for: {error}"));
                false
            }
        });
        lines
    }

    /// Gives commands that still run `limit` at most from now on; what is going to be waited for, if any runs.
    pub(super) fn begin_to_finish(&mut self, limit: Duration) -> Option<String> {
        let mut left = None;
        for running in &mut self.running {
            let elapsed = running.begun.elapsed();
            running.limit = running.limit.min(elapsed.saturating_add(limit));
            // One that has ended is waited for no longer.
            if matches!(running.child.try_wait(), Ok(None)) {
                left = left.max(Some(running.limit.saturating_sub(elapsed)));
            }
        }
        left.map(|left| format!("Waiting for alerts.command to end, {} s at most", tenths(left)))
    }

    /// Waits until no command runs.
    pub(super) fn finish(&mut self) -> Vec<String> {
        let mut lines = self.ended();
        while !self.running.is_empty() {
            std::thread::sleep(PAUSE);
            lines.extend(self.ended());
        }
        lines
    }
}

/// Seconds, to a tenth.
fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

impl Drop for Hook {
    fn drop(&mut self) {
        for running in &mut self.running {
            linc_device::process::kill_group(running.child.id());
            let _ = running.child.wait();
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::alerts::AlertKind;
    use crate::config::AlertLevel;

    fn alert() -> Alert {
        let message = "it's \"bad\" $HOME `id`".to_owned();
        Alert { level: AlertLevel::Error, kind: AlertKind::NonFinite, step: 7, message }
    }

    fn hook(command: &str, folder: &Path, seconds: f64) -> Hook {
        Hook::new(command.to_owned(), folder, Duration::from_secs_f64(seconds))
    }

    #[test]
    fn the_command_is_told_the_alert() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "printf '%s|%s|%s|%s' \"$LINC_ALERT_LEVEL\" \"$LINC_ALERT_KIND\" $LINC_ALERT_STEP \"$LINC_ALERT_MESSAGE\" > \"$LINC_RUN/told\"";
        let mut hook = hook(text, folder.path(), 30.0);
        assert_eq!(hook.run(&alert()), None);
        assert_eq!(hook.finish(), Vec::<String>::new());
        let told = std::fs::read_to_string(folder.path().join("told")).expect("told");
        assert_eq!(told, "error|non_finite|7|it's \"bad\" $HOME `id`");
    }

    #[test]
    fn one_that_fails_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        for command in ["exit 3", "no-such-program-of-anybody"] {
            let mut hook = hook(command, folder.path(), 30.0);
            assert_eq!(hook.run(&alert()), None);
            let lines = hook.finish();
            assert!(lines.len() == 1 && lines[0].contains("failed: exit status"), "{lines:?}");
        }
    }

    #[test]
    fn what_is_waited_for_is_said_and_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut hook = hook("sleep 1000", folder.path(), 500.0);
        assert_eq!(hook.begin_to_finish(Duration::MAX), None, "nothing runs");
        assert_eq!(hook.run(&alert()), None);
        let waiting = hook.begin_to_finish(Duration::MAX).expect("one runs");
        assert!(waiting.contains("alerts.command") && waiting.contains("500 s at most"), "{waiting}");
        let waiting = hook.begin_to_finish(Duration::from_millis(200)).expect("one runs");
        assert!(waiting.contains("0.2 s at most"), "{waiting}");
        let begun = Instant::now();
        let lines = hook.finish();
        assert!(lines.len() == 1 && lines[0].contains("was ended"), "{lines:?}");
        assert!(begun.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn one_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut hook = hook("sleep 1000 & echo $! > \"$LINC_RUN/pid\"; wait", folder.path(), 0.5);
        let begun = Instant::now();
        assert_eq!(hook.run(&alert()), None);
        let lines = hook.finish();
        assert!(lines.len() == 1 && lines[0].contains("longer than 0.5 s"), "{lines:?}");
        assert!(begun.elapsed() < Duration::from_secs(60));
        let pid = std::fs::read_to_string(folder.path().join("pid")).expect("a number");
        // A process that has ended and that nobody has waited for yet is still listed.
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        let is_gone =
            || state().rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"));
        for _ in 0..500 {
            if is_gone() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("it still runs: {}", state());
    }
}
