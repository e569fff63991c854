//! Bytes: the macro that turns a request table into codes, rows, typed requests and typed replies.
//!
//! A line of a table reads
//! `id NAME (gate) descriptors Variant[fields] => reply rule (refusal) : descriptors [reply fields];`
//! and a field's name says where it comes from: `payload` from the bytes; `handle` (one),
//! `optional` (one or none) and `handles` (all) from the descriptors.

use super::{
    gpu::image::check_size,
    payload::{Form, PayloadFault, PayloadKind, Role, SizeRule, TrailingBytes},
    row::{HandleRule, MessageName},
};
use crate::{
    assembler::{Frame, Handles},
    error::DecodeError,
};

/// A message's parts while they are turned into a typed value.
pub(crate) struct Source<'b, H> {
    pub(crate) message: MessageName,
    /// Payload bytes that the header announces beyond those that are here: an image.
    following: u32,
    pub(crate) payload: &'b [u8],
    pub(crate) handles: Handles<H>,
    pub(crate) form: Form,
}

impl<'b, H> Source<'b, H> {
    /// Checks what can be checked without knowing the layout: the number of descriptors.
    pub(crate) fn new(
        message: MessageName,
        frame: Frame<'b, H>,
        rule: HandleRule,
        form: Form,
    ) -> Result<Self, DecodeError> {
        let Frame { header, payload, handles } = frame;
        let expected = rule.count(payload, form);
        let found = handles.len();
        if found < expected.least || found > expected.most {
            return Err(DecodeError::HandleCount { message, expected, found });
        }
        let following = header.size().saturating_sub(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        Ok(Self { message, following, payload, handles, form })
    }

    pub(crate) fn fault(&self, fault: PayloadFault) -> DecodeError {
        DecodeError::Payload { message: self.message, fault }
    }

    /// Refuses bytes after a message that has no payload, and an image of another size than the
    /// message says.
    pub(crate) fn end(&self, kind: PayloadKind) -> Result<(), DecodeError> {
        if kind.before_image().is_some() {
            return check_size(kind, self.payload, self.following).map_err(|fault| self.fault(fault));
        }
        let surplus = kind == PayloadKind::Empty
            && !self.payload.is_empty()
            && self.form.trailing == TrailingBytes::Refuse
            // A reply whose content means nothing may have any (see `LogBase`).
            && self.form.role == Role::Request;
        if surplus {
            let fault = PayloadFault::Size { expected: SizeRule::Exactly(0), found: self.payload.len() };
            return Err(self.fault(fault));
        }
        Ok(())
    }

    /// Refuses any byte.
    pub(crate) fn nothing(&self) -> Result<(), DecodeError> {
        match self.payload.len() {
            0 => Ok(()),
            found => Err(self.fault(PayloadFault::Size { expected: SizeRule::Exactly(0), found })),
        }
    }

    pub(crate) fn one(&mut self) -> Result<H, DecodeError> {
        let expected = super::row::HandleCount { least: 1, most: 1 };
        self.handles.pop().ok_or(DecodeError::HandleCount { message: self.message, expected, found: 0 })
    }
}

/// Takes one field of a typed message out of its source.
macro_rules! take {
    ($source:ident, $b:lifetime, payload, $type:ty) => {
        <$type as $crate::wire::payload::Payload<$b>>::decode($source.payload, $source.form)
            .map_err(|fault| $source.fault(fault))?
    };
    ($source:ident, $b:lifetime, handle, $type:ty) => {
        $source.one()?
    };
    ($source:ident, $b:lifetime, optional, $type:ty) => {
        $source.handles.pop()
    };
    ($source:ident, $b:lifetime, handles, $type:ty) => {
        core::mem::take(&mut $source.handles)
    };
}

/// Puts one field of a typed message into the bytes or among the descriptors.
macro_rules! put {
    ($out:ident, $handles:ident, $form:ident, payload, $value:expr) => {
        $crate::wire::payload::Payload::encode(&$value, $out, $form)?
    };
    ($out:ident, $handles:ident, $form:ident, handle, $value:expr) => {
        // There is room: a message with a single descriptor has no others.
        drop($handles.push($value))
    };
    ($out:ident, $handles:ident, $form:ident, optional, $value:expr) => {
        if let Some(handle) = $value {
            drop($handles.push(handle))
        }
    };
    ($out:ident, $handles:ident, $form:ident, handles, $value:expr) => {
        *$handles = $value
    };
}

/// The kind of the `payload` field, if there is one.
macro_rules! payload_kind {
    ($b:lifetime, payload: $type:ty $(, $($rest:tt)*)?) => {
        <$type as $crate::wire::payload::Payload<$b>>::KIND
    };
    ($b:lifetime, $($rest:tt)*) => {
        $crate::wire::payload::PayloadKind::Empty
    };
}

macro_rules! handle_rule {
    () => {
        $crate::wire::row::HandleRule::None
    };
    ($rule:ident) => {
        $crate::wire::row::HandleRule::$rule
    };
}

macro_rules! requests {
    (
        channel $channel:ident;
        $(#[$code_meta:meta])* code $code:ident;
        $(#[$request_meta:meta])* request $request:ident <$($lifetime:lifetime,)? H>;
        $(#[$reply_meta:meta])* reply $reply:ident <$($reply_lifetime:lifetime,)? H> $($without:ident)?;
        $(
            $(#[$meta:meta])*
            $id:literal $name:ident ($gate:expr) $handles:ident $variant:ident $([$($field:ident : $type:ty),+])?
            => $rule:ident $(($refusal:ident))? $(: $reply_handles:ident [$($reply_field:ident : $reply_type:ty),+])?;
        )*
    ) => {
        $(#[$code_meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $code(
            /// The id on the wire, known or not.
            pub u32,
        );

        impl $code {
            $(
                $(#[$meta])*
                pub const $name: Self = Self($id);
            )*

            /// Every known id in order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The request's line in the table; `None` for an unknown id.
            #[must_use]
            pub const fn row(self) -> Option<&'static Row> {
                match self.0 {
                    $($id => {
                        const ROW: Row = Row {
                            id: $id,
                            name: stringify!($name),
                            payload: $request::<()>::$name,
                            handles: HandleRule::$handles,
                            gate: $gate,
                            reply: ReplyRule::$rule $((Refusal::$refusal))?,
                            reply_payload: $reply::<()>::$name,
                            reply_handles: handle_rule!($($reply_handles)?),
                        };
                        Some(&ROW)
                    })*
                    _ => None,
                }
            }

            /// The name of this message in errors.
            #[must_use]
            pub const fn message(self) -> MessageName {
                MessageName { channel: Channel::$channel, id: self.0 }
            }
        }

        impl core::fmt::Debug for $code {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(&self.message(), f)
            }
        }

        $(#[$request_meta])*
        #[derive(Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $request<$($lifetime,)? H> {
            $(
                $(#[$meta])*
                $variant $(($($type),+))?,
            )*
        }

        #[allow(unused_mut, unused_variables, reason = "many messages carry nothing")]
        impl<'b, H> $request<$($lifetime,)? H> {
            $(const $name: PayloadKind = payload_kind!('b, $($($field: $type),+)?);)*

            /// Which request this is.
            #[must_use]
            pub fn code(&self) -> $code {
                match self {
                    $(Self::$variant { .. } => $code::$name,)*
                }
            }

            /// Turns a frame into a typed request, without any knowledge of the session but its
            /// form.
            ///
            /// # Errors
            /// The id is unknown, or payload or descriptors are not those of its row.
            pub fn decode(frame: Frame<'b, H>, form: Form) -> Result<Self, DecodeError> {
                let wire = $code(frame.header.request()).message();
                let message = form.known(wire)?;
                let code = $code(message.id);
                let row = code.row().ok_or(DecodeError::UnknownRequest { message })?;
                let mut source = Source::new(message, frame, row.handles, form)?;
                source.end(row.payload)?;
                match code {
                    $($code::$name => Ok(Self::$variant $(($(take!(source, 'b, $field, $type)),+))?),)*
                    _ => Err(DecodeError::UnknownRequest { message }),
                }
            }

            /// Writes the whole message, without any knowledge of the session but its form.
            ///
            /// # Errors
            /// The buffer is too small, or the descriptors are not those of the request's row.
            pub fn encode(
                self,
                need_reply: bool,
                form: Form,
                out: &mut [u8],
            ) -> Result<Transmit<'_, H>, ApiMisuse> {
                let code = self.code();
                let wire = form.on_wire(code.message())?;
                let transmit = write(
                    code.message(),
                    out,
                    |size| Header::opening(wire, need_reply, size),
                    |writer, handles| self.put(writer, handles, form),
                )?;
                match code.row() {
                    Some(row) => check_handles(code.message(), row.handles, &transmit, form).map(|()| transmit),
                    None => Ok(transmit),
                }
            }

            /// Writes the payload and hands out the descriptors.
            pub(crate) fn put(
                self,
                out: &mut Writer<'_>,
                handles: &mut Handles<H>,
                form: Form,
            ) -> Result<(), BufferTooSmall> {
                match self {
                    $(Self::$variant $(($($field),+))? => {
                        $($(put!(out, handles, form, $field, $field);)+)?
                    })*
                }
                Ok(())
            }
        }

        replies! {
            $code $(#[$reply_meta])* $reply <$($reply_lifetime)?> [$($without)?];
            $($name [$($reply_handles)?] $variant [$($($reply_field: $reply_type),+)?])*
        }
    };
}

/// The replies: one variant for each request with a reply of its own.
macro_rules! replies {
    // Sorts the lines into those with a reply of their own and those without.
    (@sort [$($head:tt)*] [$($own:tt)*] [$($none:ident)*];
        $name:ident [] $variant:ident [] $($rest:tt)*) => {
        replies!(@sort [$($head)*] [$($own)*] [$($none)* $name]; $($rest)*);
    };
    (@sort [$($head:tt)*] [$($own:tt)*] [$($none:ident)*];
        $name:ident [$handles:ident] $variant:ident [$($fields:tt)+] $($rest:tt)*) => {
        replies!(@sort [$($head)*] [$($own)* ($name $variant [$($fields)+])] [$($none)*]; $($rest)*);
    };
    (@sort [$code:ident $(#[$meta:meta])* $reply:ident <$($lifetime:lifetime)?> [$($without:ident)?]]
        [$(($name:ident $variant:ident [$($field:ident : $type:ty),+]))*] [$($none:ident)*];) => {
        $(#[$meta])*
        #[derive(Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $reply<$($lifetime,)? H> {
            /// The request succeeded: acknowledged, or no acknowledgement was due.
            Done,
            /// The request was refused, for a reason that the number does not tell reliably.
            Refused(NonZeroU64),
            $(
                #[doc = concat!("Answers `", stringify!($name), "`.")]
                $variant($($type),+),
            )*
            $(
                // No reply of this channel carries a descriptor; the parameter names the type of
                // those that a transmission could carry.
                #[doc(hidden)]
                $without(core::convert::Infallible, core::marker::PhantomData<H>),
            )?
        }

        #[allow(unused_mut, unused_variables, reason = "some replies carry nothing but a descriptor")]
        impl<'b, H> $reply<$($lifetime,)? H> {
            $(const $name: PayloadKind = payload_kind!('b, $($field: $type),+);)*
            $(const $none: PayloadKind = PayloadKind::Empty;)*

            /// Which request this answers; `None` for [`Self::Done`] and [`Self::Refused`], which
            /// answer any.
            #[must_use]
            pub fn code(&self) -> Option<$code> {
                match self {
                    Self::Done | Self::Refused(_) => None,
                    $(Self::$variant { .. } => Some($code::$name),)*
                    $(Self::$without(never, _) => match *never {},)?
                }
            }

            /// Turns the frame of a reply of its own into a typed reply.
            ///
            /// # Errors
            /// The request has no reply of its own, or payload or descriptors are not those of
            /// its row.
            pub fn decode(frame: Frame<'b, H>, form: Form) -> Result<Self, DecodeError> {
                let wire = $code(frame.header.request()).message();
                let code = $code(form.known(wire)?.id);
                let row = code.row().ok_or(DecodeError::UnknownRequest { message: code.message() })?;
                let mut source = Source::new(code.message(), frame, row.reply_handles, form)?;
                match code {
                    _ if row.reply == ReplyRule::Empty => source.nothing().map(|()| Self::Done),
                    $($code::$name => Ok(Self::$variant($(take!(source, 'b, $field, $type)),+)),)*
                    _ => Err(DecodeError::UnknownRequest { message: code.message() }),
                }
            }

            /// Writes the whole message that answers request `code`, without any knowledge of the
            /// session but its form. Success and refusal become acknowledgements.
            ///
            /// # Errors
            /// The buffer is too small, or the descriptors are not those of the request's row.
            pub fn encode(self, code: $code, form: Form, out: &mut [u8]) -> Result<Transmit<'_, H>, ApiMisuse> {
                let message = code.message();
                let wire = form.on_wire(message)?;
                if let Some(number) = $crate::channel::Reply::<H>::number(&self) {
                    return write_number(wire, code.row(), number, out);
                }
                let transmit = write(
                    message,
                    out,
                    |size| Header::answering(wire, size),
                    |writer, handles| $crate::channel::Reply::put(self, writer, handles, form),
                )?;
                match code.row() {
                    Some(row) => check_handles(message, row.reply_handles, &transmit, form).map(|()| transmit),
                    None => Ok(transmit),
                }
            }
        }

        #[allow(unused_variables, reason = "some replies carry nothing but a descriptor")]
        impl<'b, H> $crate::channel::Reply<H> for $reply<$($lifetime,)? H> {
            fn number(&self) -> Option<u64> {
                match self {
                    Self::Done => Some(0),
                    Self::Refused(number) => Some(number.get()),
                    _ => None,
                }
            }

            fn message(&self) -> Option<MessageName> {
                self.code().map($code::message)
            }

            fn put(
                self,
                out: &mut Writer<'_>,
                handles: &mut Handles<H>,
                form: Form,
            ) -> Result<(), BufferTooSmall> {
                match self {
                    Self::Done | Self::Refused(_) => {}
                    $(Self::$variant($($field),+) => {
                        $(put!(out, handles, form, $field, $field);)+
                    })*
                    $(Self::$without(never, _) => match never {},)?
                }
                Ok(())
            }
        }
    };
    ($code:ident $(#[$meta:meta])* $reply:ident <$($lifetime:lifetime)?> [$($without:ident)?]; $($lines:tt)*) => {
        replies!(@sort [$code $(#[$meta])* $reply <$($lifetime)?> [$($without)?]] [] []; $($lines)*);
    };
}

pub(crate) use {handle_rule, payload_kind, put, replies, requests, take};
