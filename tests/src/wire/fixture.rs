//! One request as bytes, with all that the protocol says about it.

use super::{Bytes, Layout, REPLY, REQUEST, REQUEST_NEEDING_REPLY, header};

/// One request in one form: its bytes, its descriptors, its replies, and when it may be sent.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// The request's id; the two directions count separately.
    pub id: u32,
    /// The specification's name without its prefix.
    pub name: &'static str,
    /// Which variant of the request this is; [`Fixture::USUAL`] or what is special about it.
    pub form: &'static str,
    /// How the payload is laid out.
    pub layout: Layout,
    /// The bytes after the header.
    pub payload: Vec<u8>,
    /// How many descriptors go with it.
    pub descriptors: usize,
    /// What the receiver sends back.
    pub reply: Reply,
    /// When it may be sent.
    pub gate: Gate,
}

/// What the receiver of a request sends back.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Nothing of its own: a `u64`, 0 for success, when REPLY_ACK is negotiated and the request needs a reply.
    Acknowledgement,
    /// One reply, whatever the flags say: the usual one first, then what else a peer may answer.
    Own(Vec<Answer>),
    /// Nothing, even when asked: the front-end's last word in the exchange of postcopy bases.
    Never,
}

/// One reply to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What this answer says.
    pub form: &'static str,
    /// How its payload is laid out.
    pub layout: Layout,
    /// The bytes after the header.
    pub payload: Vec<u8>,
    /// How many descriptors go with it.
    pub descriptors: usize,
}

/// What both sides must have agreed before a request may be sent. The default lets it pass always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// Protocol features that must be negotiated; see [`super::feature::with_dependencies`] for what these need in turn.
    pub protocol: u64,
    /// Virtio features that must be negotiated.
    pub virtio: u64,
    /// Virtio features that the back-end must have offered; nobody need have taken them.
    pub offered: u64,
    /// Protocol features under which this form is not the right one.
    pub without: u64,
}

impl Fixture {
    /// The form that the lists of all requests hold.
    pub const USUAL: &'static str = "usual";

    /// A request without descriptors, gate or reply of its own.
    pub fn new(id: u32, name: &'static str, layout: Layout, payload: Bytes) -> Self {
        Self {
            id,
            name,
            form: Self::USUAL,
            layout,
            payload: payload.done(),
            descriptors: 0,
            reply: Reply::Acknowledgement,
            gate: Gate::default(),
        }
    }

    /// The same as another form of the request.
    pub fn form(self, form: &'static str) -> Self {
        Self { form, ..self }
    }

    /// The same with descriptors.
    pub fn descriptors(self, descriptors: usize) -> Self {
        Self { descriptors, ..self }
    }

    /// The same behind protocol features.
    pub fn gate(mut self, protocol: u64) -> Self {
        self.gate.protocol |= protocol;
        self
    }

    /// The same behind virtio features.
    pub fn virtio(mut self, virtio: u64) -> Self {
        self.gate.virtio |= virtio;
        self
    }

    /// The same behind virtio features that need only be offered.
    pub fn offered(mut self, offered: u64) -> Self {
        self.gate.offered |= offered;
        self
    }

    /// The same, not to be used once these protocol features are negotiated.
    pub fn without(mut self, protocol: u64) -> Self {
        self.gate.without |= protocol;
        self
    }

    /// The same with a reply of its own, or one more of them.
    pub fn answer(self, form: &'static str, layout: Layout, payload: Bytes, descriptors: usize) -> Self {
        let mut answers = match self.reply {
            Reply::Own(answers) => answers,
            Reply::Acknowledgement | Reply::Never => Vec::new(),
        };
        answers.push(Answer { form, layout, payload: payload.done(), descriptors });
        Self { reply: Reply::Own(answers), ..self }
    }

    /// The same without any reply.
    pub fn unanswered(self) -> Self {
        Self { reply: Reply::Never, ..self }
    }

    /// Whether this is the form that the lists of all requests hold.
    pub fn is_usual(&self) -> bool {
        self.form == Self::USUAL
    }

    /// The whole message that asks for no acknowledgement.
    pub fn request(&self) -> Vec<u8> {
        self.message(REQUEST)
    }

    /// The whole message that asks for an acknowledgement.
    pub fn request_needing_reply(&self) -> Vec<u8> {
        self.message(REQUEST_NEEDING_REPLY)
    }

    /// The whole message with any flags.
    pub fn message(&self, flags: u32) -> Vec<u8> {
        whole(self.id, flags, &self.payload)
    }

    /// The replies of its own, the usual one first; none for a request that is merely acknowledged.
    pub fn answers(&self) -> &[Answer] {
        match &self.reply {
            Reply::Own(answers) => answers,
            Reply::Acknowledgement | Reply::Never => &[],
        }
    }

    /// The usual reply as a whole message: the first of its own, or the acknowledgement of success.
    pub fn reply(&self) -> Vec<u8> {
        match self.answers().first() {
            Some(answer) => answer.message(self.id),
            None => self.acknowledgement(0),
        }
    }

    /// An acknowledgement as a whole message: 0 for success, all else for failure.
    pub fn acknowledgement(&self, value: u64) -> Vec<u8> {
        whole(self.id, REPLY, &value.to_ne_bytes())
    }
}

impl Answer {
    /// The whole reply to the request of this id.
    pub fn message(&self, id: u32) -> Vec<u8> {
        whole(id, REPLY, &self.payload)
    }
}

fn whole(id: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    Bytes::new().raw(&header(id, flags, size)).raw(payload).done()
}
