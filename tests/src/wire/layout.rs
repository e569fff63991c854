//! The table of payload layouts, and a decoder that knows nothing but this table.

use super::bytes::native;
use core::fmt;
use core::ops::Range;

/// A named field and its bytes.
type Field = (&'static str, usize);

/// How a payload is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are the table's first column")]
pub enum Layout {
    Empty,
    U64,
    VringState,
    VringAddress,
    MemoryTable,
    MemoryTableXen,
    SingleRegion,
    SingleRegionXen,
    Log,
    Iotlb,
    Config,
    VringArea,
    /// As C programs send it: 4 bytes of padding at the end.
    Inflight,
    /// As the specification has it: 20 bytes.
    InflightUnpadded,
    Uuid,
    Transfer,
    Mapping,
    SharedMemory,
    CryptoSession,
}

/// What follows the fields that are always there.
enum Tail {
    Nothing,
    /// As many records as the field says.
    Records {
        count: &'static str,
        name: &'static str,
        each: &'static [Field],
    },
    /// As many bytes as the field says.
    Data {
        count: &'static str,
    },
    /// A fixed number of 64-bit numbers.
    Numbers {
        count: usize,
        name: &'static str,
    },
}

const REGION: &[Field] = &[("guest_address", 8), ("size", 8), ("user_address", 8), ("mmap_offset", 8)];
const REGION_XEN: &[Field] =
    &[("guest_address", 8), ("size", 8), ("user_address", 8), ("mmap_offset", 8), ("xen_flags", 4), ("domain", 4)];
const SINGLE_REGION: &[Field] =
    &[("padding", 8), ("guest_address", 8), ("size", 8), ("user_address", 8), ("mmap_offset", 8)];
const SINGLE_REGION_XEN: &[Field] = &[
    ("padding", 8),
    ("guest_address", 8),
    ("size", 8),
    ("user_address", 8),
    ("mmap_offset", 8),
    ("xen_flags", 4),
    ("domain", 4),
];

impl Layout {
    fn table(self) -> (&'static [Field], Tail) {
        let head: &[Field] = match self {
            Self::Empty => &[],
            Self::U64 => &[("value", 8)],
            Self::VringState => &[("index", 4), ("num", 4)],
            Self::VringAddress => {
                &[("index", 4), ("flags", 4), ("descriptor", 8), ("used", 8), ("available", 8), ("log", 8)]
            }
            Self::MemoryTable | Self::MemoryTableXen => &[("count", 4), ("padding", 4)],
            Self::SingleRegion => SINGLE_REGION,
            Self::SingleRegionXen => SINGLE_REGION_XEN,
            Self::Log => &[("size", 8), ("offset", 8)],
            Self::Iotlb => {
                &[("iova", 8), ("size", 8), ("user_address", 8), ("permission", 1), ("type", 1), ("padding", 6)]
            }
            Self::Config => &[("offset", 4), ("size", 4), ("flags", 4)],
            Self::VringArea => &[("index_and_flags", 8), ("size", 8), ("offset", 8)],
            Self::Inflight => {
                &[("mmap_size", 8), ("mmap_offset", 8), ("num_queues", 2), ("queue_size", 2), ("padding", 4)]
            }
            Self::InflightUnpadded => &[("mmap_size", 8), ("mmap_offset", 8), ("num_queues", 2), ("queue_size", 2)],
            Self::Uuid => &[("uuid", 16)],
            Self::Transfer => &[("direction", 4), ("phase", 4)],
            Self::Mapping => {
                &[("shmid", 1), ("padding", 7), ("fd_offset", 8), ("shm_offset", 8), ("length", 8), ("flags", 8)]
            }
            Self::SharedMemory => &[("num_regions", 4), ("padding", 4)],
            Self::CryptoSession => &[("operation", 8), ("parameters", 1056), ("session", 8)],
        };
        let tail = match self {
            Self::MemoryTable => Tail::Records { count: "count", name: "regions", each: REGION },
            Self::MemoryTableXen => Tail::Records { count: "count", name: "regions", each: REGION_XEN },
            Self::Config => Tail::Data { count: "size" },
            Self::SharedMemory => Tail::Numbers { count: 256, name: "sizes" },
            _ => Tail::Nothing,
        };
        (head, tail)
    }

    /// The payload of a little-endian machine as this machine would have sent it: every number in native byte order, data
    /// as it is.
    ///
    /// # Errors
    /// Says where bytes are missing or how many are left over.
    pub fn native(self, little_endian: &[u8]) -> Result<Vec<u8>, String> {
        let (head, tail) = self.table();
        // What comes again and again behind the head.
        let tail: Vec<usize> = match tail {
            Tail::Nothing | Tail::Data { .. } => Vec::new(),
            Tail::Records { each, .. } => each.iter().map(|(_, width)| *width).collect(),
            Tail::Numbers { .. } => vec![8],
        };
        let (mut bytes, mut rest) = (Vec::new(), little_endian);
        for width in head.iter().map(|(_, width)| *width).chain(tail.into_iter().cycle()) {
            let Some((field, behind)) = rest.split_at_checked(width) else { break };
            bytes.extend(if width <= 8 { native(field) } else { field.to_vec() });
            rest = behind;
        }
        bytes.extend(rest);
        self.decode(&bytes).map(|_| bytes)
    }

    /// Cuts a payload into its fields.
    ///
    /// # Errors
    /// Says where bytes are missing or how many are left over.
    pub fn decode(self, payload: &[u8]) -> Result<Fields, String> {
        let (head, tail) = self.table();
        let mut fields = Fields { payload: payload.to_vec(), places: Vec::new() };
        for &(name, width) in head {
            fields.cut(name.to_owned(), width)?;
        }
        match tail {
            Tail::Nothing => {}
            Tail::Records { count, name, each } => {
                for record in 0..fields.number(count) {
                    for &(field, width) in each {
                        fields.cut(format!("{name}[{record}].{field}"), width)?;
                    }
                }
            }
            Tail::Data { count } => {
                let width = usize::try_from(fields.number(count)).unwrap();
                fields.cut("data".to_owned(), width)?;
            }
            Tail::Numbers { count, name } => {
                for number in 0..count {
                    fields.cut(format!("{name}[{number}]"), 8)?;
                }
            }
        }
        match payload.len() - fields.end() {
            0 => Ok(fields),
            left => Err(format!("{self:?} ends after {} bytes, {left} are left over", fields.end())),
        }
    }
}

/// The fields of one payload, found by name: `index`, `regions[1].size`, `data`.
#[derive(Clone, PartialEq, Eq)]
pub struct Fields {
    payload: Vec<u8>,
    places: Vec<(String, Range<usize>)>,
}

impl Fields {
    /// A field of 1, 2, 4 or 8 bytes as a number.
    pub fn number(&self, name: &str) -> u64 {
        let bytes = self.bytes(name);
        match *bytes {
            [byte] => byte.into(),
            [a, b] => u16::from_ne_bytes([a, b]).into(),
            [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
            [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            _ => panic!("{name} has {} bytes and is no number", bytes.len()),
        }
    }

    /// A field's bytes.
    pub fn bytes(&self, name: &str) -> &[u8] {
        let place = self.places.iter().find(|(known, _)| known == name);
        let (_, range) = place.unwrap_or_else(|| panic!("no field {name} in {self:?}"));
        &self.payload[range.clone()]
    }

    /// Names and bytes in the order of the wire; padding is a field called `padding`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.places.iter().map(|(name, range)| (name.as_str(), &self.payload[range.clone()]))
    }

    fn end(&self) -> usize {
        self.places.last().map_or(0, |(_, range)| range.end)
    }

    fn cut(&mut self, name: String, width: usize) -> Result<(), String> {
        let range = self.end()..self.end() + width;
        if range.end > self.payload.len() {
            return Err(format!("{name} is {range:?} of a payload of {} bytes", self.payload.len()));
        }
        self.places.push((name, range));
        Ok(())
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}
