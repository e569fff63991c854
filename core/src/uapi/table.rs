//! The macro that makes a family's enum and its typed commands of one table.

/// One line an ioctl: variant, kernel's name, declared direction, number, argument, what follows the argument (if
/// something does), and which way the argument really goes (if the declaration is wrong).
macro_rules! ioctls {
    (@moves $direction:ident) => { Direction::$direction };
    (@moves $direction:ident $moves:ident) => { Direction::$moves };
    (@element) => { 0 };
    (@element $element:ty) => { size_of::<$element>() };
    (
        $(#[$enum_meta:meta])*
        pub enum $enum:ident of group $group:literal;
        $(
            $(#[$meta:meta])*
            $variant:ident, $name:ident:
                $direction:ident $ordinal:literal, $argument:ty $(, [$element:ty])? $(, moves $moves:ident)?;
        )*
    ) => {
        $(#[$enum_meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $enum {
            $($(#[$meta])* $variant,)*
        }

        $(
            $(#[$meta])*
            pub const $name: Command<$argument> = {
                let number = IoctlNumber::new(Direction::$direction, $group, $ordinal, size_of::<$argument>());
                let Some(number) = number else { panic!("the argument is too large for a number") };
                Command::new(IoctlRow {
                    name: stringify!($name),
                    number,
                    moves: ioctls!(@moves $direction $($moves)?),
                    element: ioctls!(@element $($element)?),
                })
            };
        )*

        impl $enum {
            /// Every ioctl of the family, in the table's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The ioctl's line in the table.
            #[must_use]
            pub const fn row(self) -> IoctlRow {
                match self {
                    $(Self::$variant => $name.row(),)*
                }
            }

            /// The ioctl with this number; `None` if there is none in the family.
            #[must_use]
            pub fn from_number(number: IoctlNumber) -> Option<Self> {
                Self::ALL.iter().copied().find(|ioctl| ioctl.number() == number)
            }

            /// Its number.
            #[must_use]
            pub const fn number(self) -> IoctlNumber {
                self.row().number
            }

            /// The kernel's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                self.row().name
            }
        }

        impl core::fmt::Display for $enum {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

pub(super) use ioctls;
