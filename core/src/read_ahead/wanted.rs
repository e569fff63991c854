//! How many descriptors the messages of a channel take, as far as they tell themselves.

use crate::{
    assembler::MAX_HANDLES,
    dialect::Dialect,
    wire::{
        feature::ProtocolFeatures,
        fs_cache::Layout,
        header::Header,
        payload::Form,
        row::{Channel, HandleCount, HandleRule, MessageName},
    },
};

/// Whoever knows what this wants.
const ANY: HandleCount = HandleCount { least: 0, most: MAX_HANDLES };

/// How many descriptors a message takes.
pub(super) fn wanted(channel: Channel, dialect: Dialect, header: &Header, payload: &[u8]) -> HandleCount {
    let size = usize::try_from(header.size()).unwrap_or(usize::MAX);
    if channel == Channel::Backend && dialect == Dialect::Auto && size == Layout::COLUMNS_SIZE {
        // What it is depends on whether it has one, see `Dialect::chosen_by`.
        return HandleCount { least: 0, most: 1 };
    }
    let form = Form::request(ProtocolFeatures::LOG_SHMFD).with_dialect(dialect);
    let message = form.known(MessageName { channel, id: header.request() });
    let Some(row) = message.ok().and_then(|message| message.row()) else { return ANY };
    let (kind, rule) =
        if header.is_reply() { (row.reply_payload, row.reply_handles) } else { (row.payload, row.handles) };
    let count = rule.count(payload, form);
    // A refusal has none. What was negotiated decides about a log. Messages of other sizes are no such messages, or the
    // last word in an exchange about memory, which has none.
    let may_do_without = header.is_reply() || rule == HandleRule::WithLogFile || !kind.size().allows(size);
    HandleCount { least: if may_do_without { 0 } else { count.least }, most: count.most.min(MAX_HANDLES) }
}
