//! What an operator sees of a program's job, and how he ends it: each answer gives the words of the next
//! question.

use std::time::Duration;

use allhands::prelude::*;
use serde_json::Value;

use crate::batch::{cluster, connect};
use crate::support::{Dev, eventually, output, run};

/// More than anybody waits for.
const TASKS: u64 = 10_000;

#[expect(clippy::disallowed_methods, reason = "the task is to take its time")]
fn long_nap(n: u64) -> u64 {
    std::thread::sleep(Duration::from_secs(1));
    n
}

pub(crate) fn json(dev: &Dev, words: &[&str]) -> Value {
    serde_json::from_str(&output(dev.ask(words).arg("--json"))).unwrap()
}

fn panics(n: u64) -> u64 {
    assert!(n != 3, "three");
    n
}

/// As `allhands dev` calls them.
pub(crate) fn a_worker_is_called_by_its_name() {
    let dev = cluster();
    let cluster = connect(&dev);
    let error = Parallel::new().on(&cluster).run((0..9).map(delayed(panics))).unwrap_err();
    let name = error.task().unwrap().worker_name().unwrap().to_owned();
    assert!(["worker-1", "worker-2"].contains(&name.as_str()), "{name}");
    assert!(error.to_string().contains(&format!("(on worker {name}, attempt ")), "{error}");

    let batch = Parallel::new().on(&cluster).start([delayed(long_nap)(0)]).unwrap();
    let explained = eventually("the task runs", || {
        let jobs = json(&dev, &["jobs"]);
        let job = jobs["jobs"][0]["job"].as_u64()?.to_string();
        let shown = json(&dev, &["job", &job]);
        let batches = shown["batches"].as_array()?;
        let id = batches.iter().find(|batch| batch["running"] == 1)?["batch"].as_str()?;
        // It may be over meanwhile.
        let (code, said, _) = run(&mut dev.ask(["explain", &format!("{id}:0")]));
        (code == Some(0) && said.contains(" on worker ")).then_some(said)
    });
    assert!(explained.contains(" on worker worker-"), "{explained}");
    drop(batch);
}

pub(crate) fn an_operator_sees_and_cancels() {
    let dev = cluster();
    let cluster = connect(&dev);
    let parallel = Parallel::new().on(&cluster).name("naps");
    let batch = parallel.start((0..TASKS).map(delayed(long_nap))).unwrap();

    let running = || json(&dev, &["status"])["running"].as_u64().filter(|running| *running > 0);
    eventually("tasks run", running);
    let jobs = json(&dev, &["jobs"]);
    let job = jobs["jobs"][0]["job"].as_u64().unwrap().to_string();
    assert_eq!(jobs["jobs"][0]["owner"], "client");
    assert_eq!((&jobs["jobs"][0]["batches_total"], &jobs["more_jobs"]), (&1.into(), &0.into()));

    let shown = json(&dev, &["job", &job]);
    let id = shown["batches"][0]["batch"].as_str().unwrap();
    assert_eq!(shown["batches"][0]["name"], "naps");
    assert_eq!((&shown["batches_total"], &shown["more_batches"]), (&1.into(), &0.into()));
    let people = output(&mut dev.ask(["job", &job]));
    assert!(people.contains(&format!("allhands explain {id}:0")), "{people}");
    eventually("it is whole", || {
        (json(&dev, &["job", &job])["batches"][0]["tasks"] == TASKS).then_some(())
    });

    let explain = |index: u64| output(&mut dev.ask(["explain", &format!("{id}:{index}")]));
    let last = explain(TASKS - 1);
    assert!(last.contains("waits for a slot"), "{last}");
    let (code, out, beyond) = run(&mut dev.ask(["explain", &format!("{id}:{TASKS}")]));
    assert_eq!((code, out.as_str()), (Some(3), ""));
    assert!(beyond.contains("not submitted"), "{beyond}");

    let said = output(&mut dev.ask(["cancel", id]));
    assert!(said.contains(id), "{said}");
    let error = batch.wait().unwrap_err().to_string();
    assert!(error.contains("cancelled"), "{error}");
    eventually("nothing runs", || (json(&dev, &["status"])["running"] == 0).then_some(()));

    // It is over; to cancel it or its job again changes nothing, which is said, and is no error. Its client
    // may be quicker, and have let go of it.
    for over in [id, &job] {
        let (code, said, error) = run(&mut dev.ask(["cancel", over]));
        assert!(matches!(code, Some(0 | 3)), "{error}");
        let said = if code == Some(0) { said } else { error };
        assert!(said.contains("over"), "{said}");
        println!("{}", said.trim());
    }
}
