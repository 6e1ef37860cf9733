//! The operators of one task, and how rows move through them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use weft_core::Problem;
use weft_sandbox::Reservation;

use crate::each::Each;
use crate::environment::TaskEnvironment;
use crate::exchange::EdgeOut;
use crate::grouping::Chunk;
use crate::numbering::Numbering;
use crate::plan::{Node, NodeWork};
use crate::running_guest::{Emitted, RunningGuest};
use crate::sink::SinkWriter;

/// A batch before an operator, by position.
struct Waiting {
    node: usize,
    batch: RecordBatch,
    reserved: Vec<Arc<Reservation>>,
}

enum Operator {
    Pass,
    Map(Option<RunningGuest>),
    Reduce(Option<RunningGuest>),
    Number(Numbering),
    Each(Option<Box<Each>>),
}

/// The operators of a task, from the source to edges and sinks.
pub(crate) struct Flow {
    nodes: Vec<Node>,
    operators: Vec<Operator>,
    pub(crate) edges: Vec<EdgeOut>,
    pub(crate) sinks: Vec<SinkWriter>,
}

impl Flow {
    pub(crate) async fn open(
        environment: &TaskEnvironment,
        edges: Vec<EdgeOut>,
        sinks: Vec<SinkWriter>,
    ) -> Result<Self, Problem> {
        let nodes = environment.plan.nodes.clone();
        let mut operators = Vec::with_capacity(nodes.len());
        for node in &nodes {
            operators.push(match &node.work {
                NodeWork::Pass | NodeWork::Task(_) => Operator::Pass,
                NodeWork::Map(function) => {
                    Operator::Map(Some(RunningGuest::mapper(environment, function).await?))
                }
                NodeWork::Reduce(function) => {
                    Operator::Reduce(Some(RunningGuest::reducer(environment, function).await?))
                }
                NodeWork::Number(plan) => Operator::Number(Numbering::new(plan)),
                NodeWork::Each(plan) => Operator::Each(Some(Box::new(Each::new(plan)))),
            });
        }
        Ok(Self {
            nodes,
            operators,
            edges,
            sinks,
        })
    }

    /// Pushes a batch into the first operator.
    pub(crate) async fn push(
        &mut self,
        environment: &TaskEnvironment,
        batch: RecordBatch,
    ) -> Result<(), Problem> {
        let reserved = Vec::new();
        let first = Waiting {
            node: 0,
            batch,
            reserved,
        };
        self.drain(environment, vec![first]).await
    }

    /// Pushes sorted rows into the first operator, which is fed with groups.
    pub(crate) async fn push_chunk(
        &mut self,
        environment: &TaskEnvironment,
        chunk: Chunk,
    ) -> Result<(), Problem> {
        let outputs = match &mut self.operators[0] {
            Operator::Reduce(Some(guest)) => guest.push_chunk(environment, chunk).await?,
            Operator::Each(each) => {
                let Some(mut each) = each.take() else {
                    return Ok(());
                };
                let pushed = self.push_each(environment, &mut each, &chunk).await;
                self.operators[0] = Operator::Each(Some(each));
                return pushed;
            }
            Operator::Pass | Operator::Map(_) | Operator::Reduce(None) | Operator::Number(_) => {
                return self.push(environment, chunk.batch).await;
            }
        };
        self.emit(environment, 0, outputs).await
    }

    /// Calls a task function for the rows of a chunk. Results go on whenever there are enough.
    async fn push_each(
        &mut self,
        environment: &TaskEnvironment,
        each: &mut Each,
        chunk: &Chunk,
    ) -> Result<(), Problem> {
        for call in each.calls(&environment.account, chunk)? {
            each.call(environment, call).await?;
            if each.is_full() {
                let outputs = each.take()?;
                self.emit(environment, 0, outputs).await?;
            }
        }
        Ok(())
    }

    /// Runs batches through the operators they are meant for, depth first, until all have reached edges and sinks.
    async fn drain(
        &mut self,
        environment: &TaskEnvironment,
        mut waiting: Vec<Waiting>,
    ) -> Result<(), Problem> {
        while let Some(next) = waiting.pop() {
            let Waiting {
                node,
                batch,
                reserved,
            } = next;
            let outputs = match &mut self.operators[node] {
                Operator::Map(Some(guest)) => guest.push(environment, batch).await?,
                Operator::Number(numbering) => Emitted {
                    batches: vec![numbering.number(environment.task, &batch)?],
                    reserved,
                },
                Operator::Pass | Operator::Map(None) | Operator::Reduce(_) | Operator::Each(_) => {
                    Emitted {
                        batches: vec![batch],
                        reserved,
                    }
                }
            };
            for output in &outputs.batches {
                self.deliver(environment, node, output.clone()).await?;
            }
            // Reversed, so that batches and branches are taken in order.
            for output in outputs.batches.into_iter().rev() {
                let children = self.nodes[node].children.iter().rev();
                waiting.extend(children.map(|child| Waiting {
                    node: *child,
                    batch: output.clone(),
                    reserved: outputs.reserved.clone(),
                }));
            }
        }
        Ok(())
    }

    async fn emit(
        &mut self,
        environment: &TaskEnvironment,
        node: usize,
        outputs: Emitted,
    ) -> Result<(), Problem> {
        for output in outputs.batches {
            let children = self.nodes[node].children.iter().rev();
            let waiting = children
                .map(|child| Waiting {
                    node: *child,
                    batch: output.clone(),
                    reserved: outputs.reserved.clone(),
                })
                .collect();
            self.deliver(environment, node, output).await?;
            self.drain(environment, waiting).await?;
        }
        Ok(())
    }

    async fn deliver(
        &mut self,
        environment: &TaskEnvironment,
        node: usize,
        output: RecordBatch,
    ) -> Result<(), Problem> {
        for sink in &self.nodes[node].sinks {
            self.sinks[*sink].write(&output)?;
        }
        for edge in &self.nodes[node].edges {
            self.edges[*edge].push(environment, output.clone()).await?;
        }
        Ok(())
    }

    /// Ends the operators, first to last; what they still emit goes on to those after them.
    pub(crate) async fn finish(&mut self, environment: &TaskEnvironment) -> Result<(), Problem> {
        for node in 0..self.operators.len() {
            let outputs = match &mut self.operators[node] {
                Operator::Pass | Operator::Number(_) => Emitted::default(),
                Operator::Each(each) => match each.take() {
                    Some(mut each) => each.take()?,
                    None => Emitted::default(),
                },
                Operator::Map(guest) => match guest.take() {
                    Some(guest) => guest.finish_mapper(environment).await?,
                    None => Emitted::default(),
                },
                Operator::Reduce(guest) => match guest.take() {
                    Some(guest) => guest.finish_reducer(environment).await?,
                    None => Emitted::default(),
                },
            };
            self.emit(environment, node, outputs).await?;
        }
        Ok(())
    }
}
