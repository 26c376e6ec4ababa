//! What a chain reads and writes, compiled into one trie.

use std::ops::Range;

use super::pointer::array_index;
use super::{MAX_DEPTH, Pointer};
use crate::record::{Column, ColumnType};

/// A field that is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// Where it stands.
    pub path: Pointer,
    /// What it holds.
    pub ty: ColumnType,
}

/// Why reads and writes make no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The whole record is written.
    #[error("the whole record cannot be written by a path")]
    WriteRoot,
    /// A path is written that no valid record can have.
    #[error("the path {0} is deeper than JSON may be here ({MAX_DEPTH} levels)")]
    TooDeep(Pointer),
    /// Two writes meet.
    #[error("the paths {0} and {1} cannot both be written: one holds the other")]
    Overlap(Pointer, Pointer),
}

/// The reads and writes of a chain, compiled.
#[derive(Debug)]
pub struct Plan {
    reads: Vec<Field>,
    writes: Vec<Pointer>,
    /// In preorder, so that everything below a node follows it without a gap; the root is the first.
    nodes: Vec<Node>,
    /// The reads once more, with what reading needs.
    reads_by_node: Vec<Read>,
    /// The writes' indices in the order of their nodes.
    leaves: Vec<u32>,
}

/// A read as the extractor takes it.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) ty: ColumnType,
    pub(super) node: u32,
}

/// A place in the trie.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Whether this node is, or is on the way to, a write.
    pub(super) is_written: bool,
    /// Those on the way to a write come first, in the order of the writes.
    pub(super) children: Vec<Child>,
    /// The first node that is not below this one.
    pub(super) subtree_end: u32,
    /// The write that this node is.
    pub(super) write: Option<u32>,
    /// The writes at and below this node, as a range of `Plan::leaves`.
    pub(super) leaves: Range<usize>,
    /// How many of the children are, or are on the way to, writes.
    pub(super) written: usize,
    /// The highest array index among the children.
    pub(super) max_index: Option<u32>,
}

/// A way down from a node.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) token: Box<str>,
    /// `token` as an array index.
    pub(super) index: Option<u32>,
    /// `token` as a member's key, with quotes and colon.
    pub(super) key_json: Box<[u8]>,
    pub(super) node: u32,
}

impl Plan {
    /// Compiles what is read and written; a write must neither equal nor hold another, while reads may do both.
    pub fn new(reads: &[Field], writes: &[Pointer]) -> Result<Self, PlanError> {
        check_writes(writes)?;
        let mut draft = vec![Draft::default()];
        let mut leaf_nodes = Vec::with_capacity(writes.len());
        for path in writes {
            leaf_nodes.push(insert(&mut draft, path));
        }
        for (write, &node) in leaf_nodes.iter().enumerate() {
            draft[node].write = Some(write as u32);
        }
        let read_drafts: Vec<usize> = reads.iter().map(|field| insert(&mut draft, &field.path)).collect();

        let mut plan = Self {
            reads: reads.to_vec(),
            writes: writes.to_vec(),
            nodes: Vec::with_capacity(draft.len()),
            reads_by_node: Vec::new(),
            leaves: Vec::with_capacity(writes.len()),
        };
        let mut numbers = vec![0; draft.len()];
        plan.flatten(&draft, 0, &mut numbers);
        let by_node = read_drafts.iter().zip(reads).map(|(&index, field)| Read { ty: field.ty, node: numbers[index] });
        plan.reads_by_node = by_node.collect();
        Ok(plan)
    }

    /// The fields that are read, in order.
    pub fn reads(&self) -> &[Field] {
        &self.reads
    }

    /// The paths that are written, in order.
    pub fn writes(&self) -> &[Pointer] {
        &self.writes
    }

    /// Empty columns for the reads, in order.
    pub fn columns(&self) -> Vec<Column> {
        self.reads.iter().map(|field| Column::new(field.ty)).collect()
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    /// The reads, in order, with their nodes.
    pub(super) fn reads_by_node(&self) -> &[Read] {
        &self.reads_by_node
    }

    /// The writes at and below a node.
    pub(super) fn writes_below(&self, node: u32) -> &[u32] {
        &self.leaves[self.node(node).leaves.clone()]
    }

    fn flatten(&mut self, draft: &[Draft], from: usize, numbers: &mut [u32]) -> u32 {
        let number = self.nodes.len() as u32;
        numbers[from] = number;
        self.nodes.push(Node::default());
        let first_leaf = self.leaves.len();
        self.leaves.extend(draft[from].write);
        let children: Vec<Child> = draft[from]
            .children
            .iter()
            .map(|(token, below)| Child {
                token: token.as_str().into(),
                index: array_index(token),
                key_json: format!("{}:", serde_json::Value::from(token.as_str())).into_bytes().into(),
                node: self.flatten(draft, *below, numbers),
            })
            .collect();
        let is_written = |child: &&Child| self.node(child.node).is_written;
        self.nodes[number as usize] = Node {
            written: children.iter().take_while(is_written).count(),
            is_written: self.leaves.len() > first_leaf,
            max_index: children.iter().filter_map(|child| child.index).max(),
            children,
            subtree_end: self.nodes.len() as u32,
            write: draft[from].write,
            leaves: first_leaf..self.leaves.len(),
        };
        number
    }
}

impl Node {
    /// The children that are, or are on the way to, writes.
    pub(super) fn written_children(&self) -> &[Child] {
        &self.children[..self.written]
    }

    /// The child that the member named `key` is.
    pub(super) fn child_of_key(&self, key: &[u8]) -> Option<u32> {
        self.children.iter().find(|child| child.token.as_bytes() == key).map(|child| child.node)
    }

    /// The child that the array element `index` is.
    pub(super) fn child_of_index(&self, index: u32) -> Option<u32> {
        self.children.iter().find(|child| child.index == Some(index)).map(|child| child.node)
    }
}

/// A node before the nodes are numbered.
#[derive(Default)]
struct Draft {
    children: Vec<(String, usize)>,
    write: Option<u32>,
}

fn insert(draft: &mut Vec<Draft>, path: &Pointer) -> usize {
    path.tokens().iter().fold(0, |at, token| {
        if let Some((_, below)) = draft[at].children.iter().find(|(known, _)| known == token) {
            return *below;
        }
        let below = draft.len();
        draft[at].children.push((token.clone(), below));
        draft.push(Draft::default());
        below
    })
}

fn check_writes(writes: &[Pointer]) -> Result<(), PlanError> {
    for path in writes {
        match path.tokens().len() {
            0 => return Err(PlanError::WriteRoot),
            depth if depth > MAX_DEPTH => return Err(PlanError::TooDeep(path.clone())),
            _ => {}
        }
    }
    // In sorted order a path comes right before what lies below it.
    let mut sorted: Vec<&Pointer> = writes.iter().collect();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0].is_prefix_of(pair[1])) {
        Some(pair) => Err(PlanError::Overlap(pair[0].clone(), pair[1].clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(texts: &[&str]) -> Vec<Pointer> {
        texts.iter().map(|text| Pointer::parse(text).expect("a pointer")).collect()
    }

    #[test]
    fn writes_that_meet_are_refused() {
        for (first, second) in [("/a", "/a"), ("/a", "/a/b"), ("/a/b/c", "/a/b")] {
            let writes = paths(&[first, "/a!", "/b", second]);
            assert!(matches!(Plan::new(&[], &writes), Err(PlanError::Overlap(..))), "{first} {second}");
        }
        assert!(Plan::new(&[], &paths(&["/a/b", "/a/c", "/ab", "/a~1b"])).is_ok());
        assert_eq!(Plan::new(&[], &paths(&["/a", ""])).err(), Some(PlanError::WriteRoot));
    }

    #[test]
    fn a_write_that_no_record_can_have_is_refused() {
        let deep = Pointer::parse(&"/a".repeat(MAX_DEPTH)).expect("a pointer");
        assert!(Plan::new(&[], &[deep]).is_ok());
        let deeper = Pointer::parse(&"/a".repeat(MAX_DEPTH + 1)).expect("a pointer");
        assert_eq!(Plan::new(&[], std::slice::from_ref(&deeper)).err(), Some(PlanError::TooDeep(deeper)));
    }

    #[test]
    fn a_read_may_hold_equal_or_lie_below_a_write() {
        let reads: Vec<Field> =
            paths(&["", "/a", "/a/b", "/a/b/c"]).into_iter().map(|path| Field { path, ty: ColumnType::Json }).collect();
        let plan = Plan::new(&reads, &paths(&["/x", "/a/b", "/a/d"])).expect("a plan");
        assert_eq!(plan.columns().len(), 4);
        assert_eq!(plan.writes_below(0), [0, 1, 2]);
        let a = plan.node(0).child_of_key(b"a").expect("a node");
        assert_eq!(plan.writes_below(a), [1, 2]);
    }
}
