//! Bytes: the macro that turns a request table into codes, rows, typed requests and typed replies.
//!
//! A line of a table reads
//! `id NAME (gate) descriptors Variant[fields] => reply rule (refusal) : descriptors [reply fields];`
//! and a field's name says where it comes from: `payload` from the bytes; `handle` (one),
//! `optional` (one or none) and `handles` (all) from the descriptors.

/// Takes one field of a typed message out of its frame.
macro_rules! take {
    ($frame:ident, $body:ident, $handle:ident, $form:ident, payload) => {
        match $crate::wire::payload::Payload::decode($body, $form) {
            Some(payload) => payload,
            None => return None,
        }
    };
    ($frame:ident, $body:ident, $handle:ident, $form:ident, handle) => {
        match $handle {
            Some(handle) => handle,
            None => return None,
        }
    };
    ($frame:ident, $body:ident, $handle:ident, $form:ident, optional) => {
        $handle
    };
    ($frame:ident, $body:ident, $handle:ident, $form:ident, handles) => {
        core::mem::take(&mut $frame.handles)
    };
}

/// What the fields of a typed message put into the bytes.
macro_rules! content {
    ($form:ident; payload $value:ident $(, $field:ident $other:ident)*) => {
        $crate::wire::payload::Payload::content($value, $form)
    };
    ($form:ident; $($field:ident $value:ident),*) => {
        $crate::wire::writer::Content::Nothing
    };
}

/// The descriptor among the fields of a typed message. Several go where they belong at once.
macro_rules! handle {
    ($handles:ident;) => {
        None
    };
    ($handles:ident; payload $value:ident $(, $field:ident $other:ident)*) => {
        handle!($handles; $($field $other),*)
    };
    ($handles:ident; handle $value:ident) => {
        Some($value)
    };
    ($handles:ident; optional $value:ident) => {
        $value
    };
    ($handles:ident; handles $value:ident) => {{
        $handles = $value;
        None
    }};
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

            const TABLE: Table = Table::new(&[
                $(Row {
                    id: $id,
                    payload: $request::<()>::$name,
                    handles: HandleRule::$handles,
                    gate: $gate,
                    reply: ReplyRule::$rule $((Refusal::$refusal))?,
                    reply_payload: $reply::<()>::$name,
                    reply_handles: handle_rule!($($reply_handles)?),
                }),*
            ]);

            /// The request's line in the table; `None` for an unknown id.
            #[must_use]
            #[inline]
            pub fn row(self) -> Option<&'static Row> {
                Self::TABLE.row(self.0)
            }

            /// The name in the specification, without its prefix; `None` for an unknown id.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($id => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// The name of this message in errors.
            #[must_use]
            #[inline]
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
        // What tells the variants apart is the id, so that neither has to be found from the other.
        #[repr(u32)]
        #[derive(Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $request<$($lifetime,)? H> {
            $(
                $(#[$meta])*
                $variant $(($($type),+))? = $id,
            )*
        }

        #[allow(unused_mut, unused_variables, reason = "many messages carry nothing")]
        impl<'b, H> $request<$($lifetime,)? H> {
            $(const $name: PayloadKind = payload_kind!('b, $($($field: $type),+)?);)*

            /// Which request this is.
            #[must_use]
            #[cfg_attr(for_size, inline(never))]
            #[cfg_attr(not(for_size), inline)]
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
            pub fn decode(mut frame: Frame<'b, H>, form: Form) -> Result<Self, DecodeError> {
                let wire = $code(frame.header.request()).message();
                let message = form.known(wire)?;
                let row = message.row().ok_or(DecodeError::UnknownRequest { message })?;
                let found = Found::new(message, &frame, form);
                Self::of_frame(row, &mut frame, &found).ok_or_else(|| match Channel::$channel {
                    Channel::Gpu => found.fault_with_image(row.payload, row.handles),
                    Channel::Frontend | Channel::Backend => found.fault(row.payload, row.handles),
                })
            }

            /// The same for a request whose row is known. Descriptors that are not the request's
            /// stay in the frame.
            pub(crate) fn of_frame(
                row: &Row,
                frame: &mut Frame<'b, H>,
                found: &Found<'b>,
            ) -> Option<Self> {
                let fits_image = !matches!(Channel::$channel, Channel::Gpu) || found.fits_image(row.payload);
                let fits = frame.fit(row.payload, row.handles, found.form) && fits_image;
                if fits { Self::of_parts(row, frame, found.form) } else { None }
            }

            #[cfg_attr(for_size, inline(never))]
            #[cfg_attr(not(for_size), inline)]
            pub(crate) fn of_parts(row: &Row, frame: &mut Frame<'b, H>, form: Form) -> Option<Self> {
                let body = Body::new(frame.payload);
                // Of several descriptors none is taken alone.
                let handle = if row.handles == HandleRule::PerRegion { None } else { frame.handles.pop() };
                match $code(row.id()) {
                    $($code::$name => Some(Self::$variant $(($(take!(frame, body, handle, form, $field)),+))?),)*
                    _ => None,
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
                let message = self.code().message();
                let wire = form.on_wire(message)?;
                let row = message.row().ok_or(ApiMisuse::NothingToAnswer)?;
                self.write(message, row, Header::opening(wire, need_reply), form, out)
            }

            /// The same for a request whose row is known.
            #[cfg_attr(for_size, inline(never))]
            #[cfg_attr(not(for_size), inline)]
            pub(crate) fn write<'o>(
                self,
                message: MessageName,
                row: &Row,
                header: Header,
                form: Form,
                out: &'o mut [u8],
            ) -> Result<Transmit<'o, H>, ApiMisuse> {
                let bytes = content_message(message, header, self.content(form), form, out)?;
                let handles = if row.handles == HandleRule::None { Handles::new() } else { self.handles() };
                with_handles(message, row.handles, bytes, handles, form)
            }

            #[cfg_attr(for_size, inline(never))]
            #[cfg_attr(not(for_size), inline)]
            fn content(&self, form: Form) -> Content<'_> {
                match self {
                    $(Self::$variant $(($($field),+))? => content!(form; $($($field $field),+)?),)*
                }
            }

            fn handles(self) -> Handles<H> {
                let mut handles = Handles::new();
                let handle = match self {
                    $(Self::$variant $(($($field),+))? => handle!(handles; $($($field $field),+)?),)*
                };
                // There is room: a message with a single descriptor has no others.
                handle.into_iter().for_each(|handle| drop(handles.push(handle)));
                handles
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
        // As with the requests; no request has the ids of those that answer any.
        #[repr(u32)]
        #[derive(Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $reply<$($lifetime,)? H> {
            /// The request succeeded: acknowledged, or no acknowledgement was due.
            Done = 0,
            /// The request was refused, for a reason that the number does not tell reliably.
            Refused(NonZeroU64) = u32::MAX,
            $(
                #[doc = concat!("Answers `", stringify!($name), "`.")]
                $variant($($type),+) = $code::$name.0,
            )*
            $(
                // No reply of this channel carries a descriptor; the parameter names the type of
                // those that a transmission could carry.
                #[doc(hidden)]
                $without(core::convert::Infallible, core::marker::PhantomData<H>) = 1 << 31,
            )?
        }

        #[allow(unused_mut, unused_variables, reason = "some replies carry nothing but a descriptor")]
        impl<'b, H> $reply<$($lifetime,)? H> {
            $(const $name: PayloadKind = payload_kind!('b, $($field: $type),+);)*
            $(const $none: PayloadKind = PayloadKind::Empty;)*

            /// Which request this answers; `None` for [`Self::Done`] and [`Self::Refused`], which
            /// answer any.
            #[must_use]
            #[cfg_attr(for_size, inline(never))]
            #[cfg_attr(not(for_size), inline)]
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
            pub fn decode(mut frame: Frame<'b, H>, form: Form) -> Result<Self, DecodeError> {
                let wire = $code(frame.header.request()).message();
                let message = form.known(wire)?;
                let row = message.row().ok_or(DecodeError::UnknownRequest { message })?;
                let is_empty = frame.payload.is_empty();
                let fits = frame.fit(row.reply_payload, row.reply_handles, form);
                let found = Found::new(message, &frame, form);
                let decoded = match row.reply {
                    _ if !fits => None,
                    ReplyRule::Empty => is_empty.then_some(Self::Done),
                    _ if !matches!($code(row.id()), $($code::$name)|+) => {
                        return Err(DecodeError::UnknownRequest { message });
                    }
                    _ => $crate::channel::Reply::of_parts(row, &mut frame, form),
                };
                decoded.ok_or_else(|| found.fault(row.reply_payload, row.reply_handles))
            }

            /// Writes the whole message that answers request `code`, without any knowledge of the
            /// session but its form. Success and refusal become acknowledgements.
            ///
            /// # Errors
            /// The buffer is too small, or the descriptors are not those of the request's row.
            pub fn encode(self, code: $code, form: Form, out: &mut [u8]) -> Result<Transmit<'_, H>, ApiMisuse> {
                let message = code.message();
                let wire = form.on_wire(message)?;
                if let Some(number) = $crate::channel::Reply::number(&self) {
                    return write_number(wire, code.row(), number, out);
                }
                let row = code.row().ok_or(ApiMisuse::NothingToAnswer)?;
                write_reply(message, row, wire, self, form, out)
            }
        }

        #[allow(unused_variables, reason = "some replies carry nothing but a descriptor")]
        impl<'b, H> $crate::channel::Reply<'b, H> for $reply<$($lifetime,)? H> {
            fn telling(number: u64) -> Self {
                NonZeroU64::new(number).map_or(Self::Done, Self::Refused)
            }

            #[cfg_attr(for_size, inline(never))]
            #[cfg_attr(not(for_size), inline)]
            fn of_parts(row: &Row, frame: &mut Frame<'b, H>, form: Form) -> Option<Self> {
                let body = Body::new(frame.payload);
                let handle = frame.handles.pop();
                match $code(row.id()) {
                    $($code::$name => Some(Self::$variant($(take!(frame, body, handle, form, $field)),+)),)*
                    _ => None,
                }
            }

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

            fn row_of(id: u32) -> Option<&'static Row> {
                $code(id).row()
            }

            #[cfg_attr(for_size, inline(never))]
            #[cfg_attr(not(for_size), inline)]
            fn content(&self, form: Form) -> Content<'_> {
                match self {
                    Self::Done | Self::Refused(_) => Content::Nothing,
                    $(Self::$variant($($field),+) => content!(form; $($field $field),+),)*
                    $(Self::$without(never, _) => match *never {},)?
                }
            }

            #[cfg_attr(for_size, inline(never))]
            #[cfg_attr(not(for_size), inline)]
            fn handles(self) -> Handles<H> {
                let mut handles = Handles::new();
                let handle = match self {
                    Self::Done | Self::Refused(_) => None,
                    $(Self::$variant($($field),+) => handle!(handles; $($field $field),+),)*
                    $(Self::$without(never, _) => match never {},)?
                };
                // There is room.
                handle.into_iter().for_each(|handle| drop(handles.push(handle)));
                handles
            }
        }
    };
    ($code:ident $(#[$meta:meta])* $reply:ident <$($lifetime:lifetime)?> [$($without:ident)?]; $($lines:tt)*) => {
        replies!(@sort [$code $(#[$meta])* $reply <$($lifetime)?> [$($without)?]] [] []; $($lines)*);
    };
}

pub(crate) use {content, handle, handle_rule, payload_kind, replies, requests, take};
