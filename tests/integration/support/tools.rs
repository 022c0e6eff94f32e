//! What tests need from outside: Debian's packages, and Python with packages of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Python in a virtual environment with what `requirements` pins: made once, by whoever comes first.
pub fn python_environment(name: &str, requirements: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let versions = requirements.trim().replace("==", "-").replace('\n', "-");
    let environment = target.join(format!("{name}-{versions}"));
    let (done, python) = (environment.join("complete"), environment.join("bin/python"));
    std::fs::create_dir_all(target).unwrap();
    // The lock is the kernel's, so whoever dies while holding it lets it go.
    let lock = File::create(target.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if done.exists() {
        return python;
    }
    needed(
        "python3 -m venv",
        Command::new("python3").args(["-c", "import venv, ensurepip"]),
        &["python3-venv", "python3-pip"],
    );
    let _ = std::fs::remove_dir_all(&environment);
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"])
        .args(requirements.split_whitespace()));
    File::create(&done).unwrap();
    python
}

/// Installs Debian's packages where the probe fails and we may; else says what to do.
pub fn needed(what: &str, probe: &mut Command, packages: &[&str]) {
    let mut works = || {
        probe
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if works() {
        return;
    }
    if rustix::process::geteuid().is_root() && Path::new("/usr/bin/apt-get").exists() {
        let lock = File::create(std::env::temp_dir().join("outrigger-tests-apt.lock")).unwrap();
        lock.lock().unwrap();
        if !works() {
            run(Command::new("apt-get").args(["update", "-qq"]));
            run(Command::new("apt-get").args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages));
        }
    }
    assert!(works(), "these tests need {what}: apt-get install {}", packages.join(" "));
}

#[track_caller]
pub fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
