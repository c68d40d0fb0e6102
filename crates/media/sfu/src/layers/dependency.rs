//! The dependency descriptor (AV1 RTP payload format, version 1.0, appendix A): which frames a frame needs, and which receivers need it.
//!
//! A key frame brings a structure: templates of frames, and *decode targets*, each of which is a subset of the frames that can be
//! decoded by itself, up to one spatial and one temporal layer. Every packet names a template of the structure. A forwarder passes the
//! structure on as it is, changes the frame numbers, and says which decode targets are left (`active_decode_targets_bitmask`).

use std::sync::Arc;

use super::bits::{BitReader, BitWriter};
use crate::allocator::Layer;

/// Templates that a structure can have: their ids have six bits.
const MAX_TEMPLATES: usize = 64;

/// The longest value of a header extension (RFC 8285 section 4.3).
const MAX_BYTES: usize = 255;

/// Spatial layers: two bits in what a receiver keeps of them.
const MAX_SPATIAL: u8 = 4;

/// Temporal layers.
const MAX_TEMPORAL: u8 = 8;

/// A template dependency structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    id: u8,
    templates: Vec<Template>,
    /// The decode targets.
    pub targets: Vec<Target>,
    chains: u32,
    /// The sizes of the spatial layers, lowest first; empty: it does not say.
    pub sizes: Vec<(u16, u16)>,
}

/// A subset of the frames that can be decoded by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Up to where it goes.
    pub layer: Layer,
    /// The decode targets, one bit each, all of whose frames are in this one, itself included.
    pub contains: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Template {
    spatial: u8,
    temporal: u8,
    relation: Relation,
    references: References,
}

/// Which decode targets a frame is in, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Relation {
    present: u32,
    switching: u32,
}

/// The frames that a frame needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct References {
    /// Bit n: the frame n + 1 before.
    near: u128,
    /// One that is further away than the bits reach.
    is_far: bool,
}

/// A packet's descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The first packet of its frame.
    pub starts_frame: bool,
    /// The last packet of its frame.
    pub ends_frame: bool,
    /// The frame's number.
    pub number: u16,
    /// The frame's spatial layer.
    pub spatial: u8,
    /// The frame's temporal layer.
    pub temporal: u8,
    /// What the frame needs.
    pub references: References,
    /// The structure that it refers to.
    pub structure: Arc<Structure>,
    /// The decode targets that the packet says are sent, one bit each.
    pub said_active: Option<u32>,
    /// The decode targets that are sent, as the packets up to this one have said.
    pub active: u32,
    relation: Relation,
    has_structure: bool,
    /// Where the bitmask of active targets is, or would be, and where the descriptor ends, in bits.
    mask_at: usize,
    end: usize,
}

impl Descriptor {
    /// A receiver can begin with it.
    pub fn is_key(&self) -> bool {
        self.has_structure && self.starts_frame
    }

    /// Whether the frame is of a decode target.
    pub fn is_in(&self, target: u8) -> bool {
        self.relation.present >> target & 1 == 1
    }

    /// Whether whoever has what this frame needs can go on with a decode target from here.
    pub fn is_switch_to(&self, target: u8) -> bool {
        self.relation.switching >> target & 1 == 1
    }

    /// The decode targets that the frame is in.
    pub fn targets(&self) -> impl Iterator<Item = usize> {
        let present = self.relation.present;
        (0..self.structure.targets.len()).filter(move |target| present >> target & 1 == 1)
    }

    /// The descriptor with another frame number, and, if `active` is given, with the decode targets that are sent. `bytes` is what it was
    /// read from.
    pub fn rewritten(&self, bytes: &[u8], number: u16, active: Option<u32>) -> Arc<[u8]> {
        let [high, low] = number.to_be_bytes();
        let Some(active) = active else {
            let mut copy: Arc<[u8]> = bytes.into();
            if let Some([_, at_high, at_low, ..]) = Arc::get_mut(&mut copy) {
                [*at_high, *at_low] = [high, low];
            }
            return copy;
        };
        let count = self.structure.targets.len();
        let original = bytes;
        let mut reader = BitReader::new(bytes);
        let mut writer = BitWriter::with_capacity(bytes.len() + 5);
        writer.copy(&mut reader, 8);
        reader.take(16);
        writer.put(u32::from(number), 16);
        if bytes.len() <= 3 {
            // No structure, a bitmask, nothing of its own.
            writer.put(0b0_1000, 5);
            writer.put(active, count);
            return writer.into_bytes().into();
        }
        writer.copy(&mut reader, 25);
        reader.take(1);
        writer.put(1, 1);
        writer.copy(&mut reader, self.mask_at);
        writer.put(active, count);
        if self.said_active.is_some() {
            reader.take(count);
        }
        writer.copy(&mut reader, self.end);
        let bytes = writer.into_bytes();
        if bytes.len() > MAX_BYTES {
            return self.rewritten(original, number, None);
        }
        bytes.into()
    }
}

impl References {
    fn add(&mut self, distance: u32) {
        match distance {
            1..=128 => self.near |= 1 << (distance - 1),
            _ => self.is_far = true,
        }
    }

    /// Whether all of them are among the frames whose bits are set, bit n being the frame n + 1 before.
    pub fn are_in(&self, sent: u128) -> bool {
        !self.is_far && self.near & !sent == 0
    }
}

impl Structure {
    /// All its decode targets, one bit each.
    pub fn all(&self) -> u32 {
        u32::MAX >> (32 - self.targets.len().clamp(1, 32))
    }

    /// The highest active decode target that is within a layer, else the lowest that is active; none: none is.
    pub fn target(&self, within: Layer, active: u32) -> Option<u8> {
        let active = || {
            let targets = self.targets.iter().zip(0_u8..);
            targets.filter(|(_, index)| active >> index & 1 == 1)
        };
        let fits = |target: &Target| target.layer.spatial <= within.spatial && target.layer.temporal <= within.temporal;
        active()
            .filter(|(target, _)| fits(target))
            .max_by_key(|(target, _)| target.layer)
            .or_else(|| active().min_by_key(|(target, _)| target.layer))
            .map(|(_, index)| index)
    }

    /// A decode target.
    pub fn get(&self, target: u8) -> Option<&Target> {
        self.targets.get(usize::from(target))
    }

    fn read(reader: &mut BitReader<'_>) -> Option<Self> {
        let id = reader.take(6)? as u8;
        let count = reader.take(5)? as usize + 1;
        let mut templates = read_layers(reader)?;
        for template in &mut templates {
            template.relation = Relation::read(reader, count)?;
        }
        for template in &mut templates {
            while reader.flag()? {
                template.references.add(reader.take(4)? + 1);
            }
        }
        let chains = reader.take_below(count as u32 + 1)?;
        if chains > 0 {
            for _ in 0..count {
                reader.take_below(chains)?;
            }
            for _ in 0..templates.len() * chains as usize {
                reader.take(4)?;
            }
        }
        let mut sizes = Vec::new();
        if reader.flag()? {
            let highest = templates.iter().map(|template| template.spatial).max()?;
            for _ in 0..=highest {
                let mut number = || Some((reader.take(16)? as u16).saturating_add(1));
                sizes.push((number()?, number()?));
            }
        }
        let targets = targets(&templates, count);
        Some(Self {
            id,
            templates,
            targets,
            chains,
            sizes,
        })
    }

    fn template(&self, id: u8) -> Option<&Template> {
        let index = usize::from(id + 64 - self.id) % MAX_TEMPLATES;
        self.templates.get(index)
    }
}

/// `template_layers()`: the layers of all templates, in ascending order.
fn read_layers(reader: &mut BitReader<'_>) -> Option<Vec<Template>> {
    let mut templates = Vec::new();
    let mut next = Template::default();
    loop {
        if templates.len() == MAX_TEMPLATES || next.spatial == MAX_SPATIAL || next.temporal == MAX_TEMPORAL {
            return None;
        }
        templates.push(next);
        match reader.take(2)? {
            0 => {}
            1 => next.temporal += 1,
            2 => {
                next.temporal = 0;
                next.spatial += 1;
            }
            _ => return Some(templates),
        }
    }
}

fn targets(templates: &[Template], count: usize) -> Vec<Target> {
    let is_in = |template: &Template, target: usize| template.relation.present >> target & 1 == 1;
    let target = |index: usize| {
        let of = || templates.iter().filter(move |template| is_in(template, index));
        let is_within = |other: &usize| {
            templates
                .iter()
                .all(|template| !is_in(template, *other) || is_in(template, index))
        };
        Target {
            layer: Layer {
                spatial: of().map(|template| template.spatial).max().unwrap_or_default(),
                temporal: of().map(|template| template.temporal).max().unwrap_or_default(),
            },
            contains: (0..count).filter(is_within).fold(0, |bits, other| bits | 1 << other),
        }
    };
    (0..count).map(target).collect()
}

impl Relation {
    /// Two bits for each decode target: not present, discardable, switch, required.
    fn read(reader: &mut BitReader<'_>, targets: usize) -> Option<Self> {
        let mut relation = Self::default();
        for target in 0..targets {
            let indication = reader.take(2)?;
            relation.present |= u32::from(indication != 0) << target;
            relation.switching |= u32::from(indication == 2) << target;
        }
        Some(relation)
    }
}

/// Reads a packet's descriptor. It brings a structure, or refers to one that is `known`, best guess first. `None`: it is truncated, or
/// refers to none of them.
pub fn read(bytes: &[u8], known: [Option<&Arc<Structure>>; 2]) -> Option<Descriptor> {
    let mut reader = BitReader::new(bytes);
    let (starts_frame, ends_frame) = (reader.flag()?, reader.flag()?);
    let template = reader.take(6)? as u8;
    let number = reader.take(16)? as u16;
    let mut flag = || {
        if bytes.len() > 3 { reader.flag() } else { Some(false) }
    };
    let (has_structure, has_active) = (flag()?, flag()?);
    let (has_targets, has_references, has_chains) = (flag()?, flag()?, flag()?);
    let structure = if has_structure {
        let structure = Structure::read(&mut reader)?;
        // The same again is no other, so that it need not be kept twice.
        let same = known.into_iter().flatten().find(|known| ***known == structure);
        same.cloned().unwrap_or_else(|| Arc::new(structure))
    } else {
        let has_template = |structure: &&Arc<Structure>| structure.template(template).is_some();
        known.into_iter().flatten().find(has_template)?.clone()
    };
    let count = structure.targets.len();
    let mask_at = reader.position();
    let said_active = if has_active { Some(reader.take(count)?) } else { None };
    let Template {
        spatial,
        temporal,
        mut relation,
        mut references,
    } = *structure.template(template)?;
    if has_targets {
        relation = Relation::read(&mut reader, count)?;
    }
    if has_references {
        references = References::default();
        loop {
            let size = reader.take(2)? as usize;
            if size == 0 {
                break;
            }
            references.add(reader.take(4 * size)? + 1);
        }
    }
    if has_chains {
        for _ in 0..structure.chains {
            reader.take(8)?;
        }
    }
    Some(Descriptor {
        starts_frame,
        ends_frame,
        number,
        spatial,
        temporal,
        references,
        said_active,
        active: structure.all(),
        structure,
        relation,
        has_structure,
        mask_at,
        end: reader.position(),
    })
}

#[cfg(test)]
pub mod tests;
