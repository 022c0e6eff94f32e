//! Which threads go first where there are fewer cores than work.

use rustix::process::{getpid, getpriority_process, setpriority_process};

/// So much nicer are threads that carry no requests. A step of 1 is about 1.25 times less of a core where both want it
/// (`sched(7)`), so that a busy worker keeps three quarters of the core that it shares with one of these, and they, with
/// what they have to do in life (a probe, an answer, ten milliseconds of an update), are still done in time.
const NICER: i32 = 5;
/// The kernel knows none below.
const NICEST: i32 = 19;

/// Lets workers go before this thread, and before those that it starts from now on. Needs no privilege. What stands in
/// the way (a sandbox) costs latency under load and nothing else.
pub(crate) fn give_way() {
    // From where the process stands, so that whoever asks twice is not nicer still.
    let nicer = getpriority_process(Some(getpid())).map(|own| (own + NICER).min(NICEST));
    if let Err(error) = nicer.and_then(|nicer| setpriority_process(None, nicer)) {
        tracing::debug!(%error, "the control thread cannot be made to give way to the workers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_once_and_the_others_do_not() {
        let own = || getpriority_process(None).unwrap();
        let before = getpriority_process(Some(getpid())).unwrap();
        let (nicer, below) = std::thread::spawn(move || {
            give_way();
            let below = std::thread::spawn(move || {
                give_way();
                own()
            });
            (own(), below.join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((nicer, below), ((before + NICER).min(NICEST), nicer));
        assert_eq!(own(), before);
    }
}
