//! A program on a cluster of real processes, and what happens to it when some of them end.
//!
//! It is a program of its own, and not one of libtest's, because the workers run it as well. It takes
//! a part of a test's name, and `--rounds N`, which does each so often:
//! `cargo test -p allhands-cli --test program -- leader_is_killed --rounds 20`

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]
#![expect(clippy::print_stdout, reason = "what was measured")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the tests of the command use the rest")]
mod support;

mod arrays;
mod batch;
mod detached;
mod faults;
mod full;
mod graphs;
mod left;
mod operator;
mod places;
mod policy;
mod record;
mod results;
mod user;

const TESTS: [(&str, fn()); 35] = [
    ("the_leader_is_killed", faults::the_leader_is_killed),
    ("the_leader_is_paused", faults::the_leader_is_paused),
    ("all_coordinators_are_killed", faults::all_coordinators_are_killed),
    ("a_worker_is_killed", faults::a_worker_is_killed),
    ("a_worker_is_drained", faults::a_worker_is_drained),
    ("a_client_is_killed", faults::a_client_is_killed),
    ("the_disk_of_the_segments_is_full", full::the_disk_of_the_segments_is_full),
    ("the_disk_of_the_log_is_full", full::the_disk_of_the_log_is_full),
    ("the_disk_of_an_embedded_cluster_is_full", full::the_disk_of_an_embedded_cluster_is_full),
    ("tasks_run_as_the_user_of_the_worker", user::tasks_run_as_the_user_of_the_worker),
    ("an_operator_sees_and_cancels", operator::an_operator_sees_and_cancels),
    ("a_worker_is_called_by_its_name", operator::a_worker_is_called_by_its_name),
    ("arrays_travel_to_workers", arrays::arrays_travel_to_workers),
    ("arrays_survive_a_leader_and_a_worker", arrays::arrays_survive_a_leader_and_a_worker),
    (
        "a_file_that_changes_before_it_travels_is_noticed",
        arrays::a_file_that_changes_before_it_travels_is_noticed,
    ),
    ("tasks_run_where_their_bytes_are", places::tasks_run_where_their_bytes_are),
    ("long_results_come_from_workers", results::long_results_come_from_workers),
    ("long_results_survive_a_leader", results::long_results_survive_a_leader),
    (
        "a_result_whose_worker_is_lost_is_an_error",
        results::a_result_whose_worker_is_lost_is_an_error,
    ),
    ("a_result_outlives_its_workers_process", results::a_result_outlives_its_workers_process),
    (
        "arrays_that_tasks_leave_are_read_from_workers",
        left::arrays_that_tasks_leave_are_read_from_workers,
    ),
    (
        "arrays_that_tasks_leave_outlive_their_call_and_a_leader",
        left::arrays_that_tasks_leave_outlive_their_call_and_a_leader,
    ),
    ("an_array_with_two_holders_survives_one", left::an_array_with_two_holders_survives_one),
    (
        "a_worker_that_is_drained_hands_its_arrays_on",
        left::a_worker_that_is_drained_hands_its_arrays_on,
    ),
    ("an_array_whose_worker_is_lost_is_an_error", left::an_array_whose_worker_is_lost_is_an_error),
    ("results_longer_than_the_store_come", left::results_longer_than_the_store_come),
    ("a_deadline_needs_no_coordinator", faults::a_deadline_needs_no_coordinator),
    ("a_graph_survives_its_leaders", graphs::a_graph_survives_its_leaders),
    (
        "a_job_outlives_its_program_and_its_leader",
        detached::a_job_outlives_its_program_and_its_leader,
    ),
    ("a_job_is_cancelled_and_forgotten", detached::a_job_is_cancelled_and_forgotten),
    ("a_worker_with_blocked_parents_is_killed", graphs::a_worker_with_blocked_parents_is_killed),
    ("policies_survive_their_leaders", policy::policies_survive_their_leaders),
    ("an_operator_cancels_a_group", policy::an_operator_cancels_a_group),
    ("an_operator_hears_what_tasks_say", record::an_operator_hears_what_tasks_say),
    ("an_operator_sees_what_happened_when", record::an_operator_sees_what_happened_when),
];

#[allhands::main]
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == faults::AS_CLIENT) {
        return faults::be_client(&words[1]);
    }
    if words.first().is_some_and(|word| word == detached::AS_OPENER) {
        return detached::be_opener(&words[1], &words[2]);
    }
    if words.first().is_some_and(|word| word == full::AS_EMBEDDED) {
        return full::be_embedded();
    }
    if words.iter().any(|word| word == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let rounds = words.iter().position(|word| word == "--rounds");
    let rounds = rounds.map_or(1, |at| words[at + 1].parse().unwrap());
    let filter = words.first().filter(|word| !word.starts_with('-'));
    for (name, test) in TESTS {
        if filter.is_none_or(|filter| name.contains(filter.as_str())) {
            for _ in 0..rounds {
                print!("{name}: ");
                test();
            }
        }
    }
}
