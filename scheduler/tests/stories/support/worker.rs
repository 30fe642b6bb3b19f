//! A worker: a real agent whose executors run everything at once.

use std::collections::VecDeque;

use allhands_common::id::{BootId, ExecutorId, WorkerId};
use allhands_common::resources::Resources;
use allhands_common::time::Instant;
use allhands_common::wire::worker::{FromWorker, Order, ToWorker};
use allhands_scheduler::{
    Action, Agent, AgentAction, AgentConfig, AgentEvent, ExecutorEvent, Load,
};

use super::leader::Leader;
use super::words::*;

/// An agent with executors that run a load as soon as they are told to.
#[derive(Debug)]
pub(crate) struct TestWorker {
    pub(crate) agent: Agent,
    pub(crate) sent: Vec<FromWorker>,
    /// Loads that no executor has run.
    pub(crate) loads: VecDeque<(ExecutorId, Load)>,
    pub(crate) other: Vec<AgentAction>,
}

impl TestWorker {
    pub(crate) fn new(slots: u32) -> Self {
        let config = AgentConfig {
            worker: WorkerId(1),
            boot: BootId([1; 16]),
            name: "host1".into(),
            resources: Resources::cpus(slots),
            platform: platform(),
        };
        let agent = Agent::new(config, Instant(0));
        Self { agent, sent: Vec::new(), loads: VecDeque::new(), other: Vec::new() }
    }

    /// Takes an event. Programs are there and executors ready at once.
    pub(crate) fn step(&mut self, now: Instant, event: AgentEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut out = Vec::new();
            self.agent.handle(now, [event], &mut out);
            for action in out {
                match action {
                    AgentAction::Send(message) => self.sent.push(message),
                    AgentAction::FetchProgram(program) => {
                        events.push_back(AgentEvent::ProgramReady(program.id));
                    }
                    AgentAction::Spawn(spawn) => {
                        let ready = AgentEvent::Executor(spawn.executor, ExecutorEvent::Ready);
                        events.push_back(ready);
                    }
                    AgentAction::Load { executor, load } => self.loads.push_back((executor, load)),
                    other => self.other.push(other),
                }
            }
        }
    }

    /// Runs the oldest load, if there is one.
    pub(crate) fn run_one(&mut self, now: Instant) -> bool {
        let Some((executor, load)) = self.loads.pop_front() else { return false };
        let (attempt, range) = (load.attempt, load.range);
        let run_us = u64::from(range.len()) * 10;
        let done = ExecutorEvent::Outcomes {
            attempt,
            range,
            segment: values(range),
            run_us,
            mentions: Vec::new(),
        };
        self.step(now, AgentEvent::Executor(executor, done));
        self.step(now, AgentEvent::Executor(executor, ExecutorEvent::Finished { attempt }));
        true
    }

    /// Hears what `actions` say to this worker, and does nothing about it.
    pub(crate) fn take(&mut self, leader: &Leader, actions: Vec<Action>) {
        for action in actions {
            if let Action::Order { number, orders, .. } = action {
                self.obey(leader, number, orders);
            }
        }
    }

    fn obey(&mut self, leader: &Leader, number: u64, mut orders: Vec<Order>) {
        for order in &mut orders {
            if let Order::Run(run) = order {
                run.segments = vec![arguments(run.range).into()];
            }
        }
        let term = leader.dispatcher.term();
        let message = ToWorker::Orders { term, number, orders };
        self.step(leader.now, AgentEvent::Leader(message));
    }

    /// Carries what `actions` say to this worker, and its answers back, until nothing moves. What was
    /// done for others on the way.
    pub(crate) fn settle(&mut self, leader: &mut Leader, actions: Vec<Action>) -> Vec<Action> {
        let (mut queue, mut others) = (VecDeque::from(actions), Vec::new());
        loop {
            for message in std::mem::take(&mut self.sent) {
                queue.extend(leader.worker(1, message));
            }
            match queue.pop_front() {
                Some(Action::Welcome { .. }) => {
                    let term = leader.dispatcher.term();
                    self.step(leader.now, AgentEvent::Leader(ToWorker::Registered { term }));
                }
                Some(Action::Order { number, orders, .. }) => self.obey(leader, number, orders),
                Some(other) => others.push(other),
                None if self.run_one(leader.now) => {}
                None => return others,
            }
        }
    }
}
