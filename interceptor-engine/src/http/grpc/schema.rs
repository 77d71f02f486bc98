//! What a descriptor set says of services and messages.
//!
//! It is what `protoc --include_imports --descriptor_set_out=FILE` and `buf build`
//! write. Members are called as in the `.proto` file.
//!
//! Format: `google/protobuf/descriptor.proto`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Why a descriptor set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// It is none.
    #[error("it is no descriptor set")]
    Malformed,
    /// A file that another imports is missing.
    #[error("it does not say what `{0}` is: write it with `--include_imports`")]
    Unknown(String),
    /// Nothing could be read by it.
    #[error("it describes no service")]
    Empty,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bytes,
    Message(usize),
    Enum(usize),
    Bool,
    /// Signed, as it is.
    Int,
    Unsigned,
    /// Signed, folded.
    Zigzag,
    Float,
}

/// A field of a message.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    /// It counts as zero where it is not there.
    pub(super) implicit: bool,
    /// Bytes of a number in a packed list; `None` where it varies.
    pub(super) width: Option<usize>,
    /// Whether it is half as wide: 32 bits.
    pub(super) short: bool,
}

#[derive(Debug, Default)]
pub(super) struct MessageType {
    pub(super) fields: BTreeMap<u32, Field>,
    /// An entry of a map: its key is field 1, its value field 2.
    pub(super) entry: bool,
}

#[derive(Debug)]
struct Method {
    input: usize,
    output: usize,
    client_streams: bool,
}

/// Everything that a descriptor set says.
#[derive(Debug, Default)]
pub struct Schemas {
    messages: Vec<MessageType>,
    enums: Vec<HashMap<i32, Arc<str>>>,
    methods: HashMap<(String, String), Method>,
}

/// What a message's fields are.
#[derive(Clone, Debug)]
pub(in crate::http) struct Shape {
    schemas: Arc<Schemas>,
    message: usize,
}

impl Shape {
    pub(super) fn message(&self) -> Option<&MessageType> {
        self.schemas.messages.get(self.message)
    }

    pub(super) fn of(&self, message: usize) -> Self {
        Self {
            schemas: Arc::clone(&self.schemas),
            message,
        }
    }

    /// Whether a field is a map, and what its entries are.
    pub(super) fn is_map(&self, field: &Field) -> bool {
        let Kind::Message(message) = field.kind else {
            return false;
        };
        let entry = self.schemas.messages.get(message);
        field.repeated && entry.is_some_and(|entry| entry.entry)
    }

    pub(super) fn enum_name(&self, of: usize, value: i32) -> Option<&str> {
        let names = self.schemas.enums.get(of)?;
        names.get(&value).map(|name| &**name)
    }
}

impl Schemas {
    /// Reads a descriptor set.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read(bytes: &[u8]) -> Result<Self, SchemaError> {
        let set = FileDescriptorSet::decode(bytes).map_err(|_| SchemaError::Malformed)?;
        let mut reader = Reader::default();
        for file in &set.file {
            let package = file.package();
            for message in &file.message_type {
                reader.name(package, message);
            }
            for one in &file.enum_type {
                reader.name_enum(package, one);
            }
        }
        let mut schemas = Self {
            messages: Vec::new(),
            enums: std::mem::take(&mut reader.enums),
            methods: HashMap::new(),
        };
        schemas
            .messages
            .resize_with(reader.messages.len(), MessageType::default);
        for file in &set.file {
            let proto3 = file.syntax() == "proto3";
            for message in &file.message_type {
                reader.read(file.package(), message, proto3, &mut schemas)?;
            }
            for service in &file.service {
                let service_name = joined(file.package(), service.name());
                for method in &service.method {
                    let read = Method {
                        input: reader.message(method.input_type())?,
                        output: reader.message(method.output_type())?,
                        client_streams: method.client_streaming(),
                    };
                    let name = (service_name.clone(), method.name().to_owned());
                    schemas.methods.insert(name, read);
                }
            }
        }
        if schemas.methods.is_empty() {
            return Err(SchemaError::Empty);
        }
        Ok(schemas)
    }

    fn method(&self, service: &str, method: &str) -> Option<&Method> {
        self.methods.get(&(service.to_owned(), method.to_owned()))
    }

    /// What a method is asked with.
    pub(in crate::http) fn input(self: &Arc<Self>, service: &str, method: &str) -> Option<Shape> {
        let message = self.method(service, method)?.input;
        Some(Shape {
            schemas: Arc::clone(self),
            message,
        })
    }

    /// What a method answers with.
    pub(in crate::http) fn output(self: &Arc<Self>, service: &str, method: &str) -> Option<Shape> {
        let message = self.method(service, method)?.output;
        Some(Shape {
            schemas: Arc::clone(self),
            message,
        })
    }

    /// Whether a method is asked with one message.
    pub(in crate::http) fn asks_once(&self, service: &str, method: &str) -> bool {
        let known = self.method(service, method);
        known.is_some_and(|method| !method.client_streams)
    }
}

fn joined(package: &str, name: &str) -> String {
    if package.is_empty() {
        name.to_owned()
    } else {
        format!("{package}.{name}")
    }
}

#[derive(Default)]
struct Reader {
    messages: HashMap<String, usize>,
    named_enums: HashMap<String, usize>,
    enums: Vec<HashMap<i32, Arc<str>>>,
}

impl Reader {
    fn name(&mut self, package: &str, message: &DescriptorProto) {
        let name = joined(package, message.name());
        for inner in &message.nested_type {
            self.name(&name, inner);
        }
        for inner in &message.enum_type {
            self.name_enum(&name, inner);
        }
        let number = self.messages.len();
        self.messages.entry(name).or_insert(number);
    }

    fn name_enum(&mut self, package: &str, one: &prost_types::EnumDescriptorProto) {
        let names = one.value.iter().rev();
        let names = names.map(|value| (value.number(), Arc::from(value.name())));
        self.named_enums
            .insert(joined(package, one.name()), self.enums.len());
        self.enums.push(names.collect());
    }

    fn message(&self, name: &str) -> Result<usize, SchemaError> {
        let name = name.trim_start_matches('.');
        let known = self.messages.get(name).copied();
        known.ok_or_else(|| SchemaError::Unknown(name.to_owned()))
    }

    fn read(
        &self,
        package: &str,
        message: &DescriptorProto,
        proto3: bool,
        schemas: &mut Schemas,
    ) -> Result<(), SchemaError> {
        let name = joined(package, message.name());
        for inner in &message.nested_type {
            self.read(&name, inner, proto3, schemas)?;
        }
        let mut read = MessageType {
            entry: message.options.as_ref().is_some_and(|one| one.map_entry()),
            ..MessageType::default()
        };
        for field in &message.field {
            let number = u32::try_from(field.number()).map_err(|_| SchemaError::Malformed)?;
            read.fields.insert(number, self.field(field, proto3)?);
        }
        let at = self.message(&name)?;
        if let Some(place) = schemas.messages.get_mut(at) {
            *place = read;
        }
        Ok(())
    }

    fn field(&self, field: &FieldDescriptorProto, proto3: bool) -> Result<Field, SchemaError> {
        let (kind, width) = match field.r#type() {
            Type::String => (Kind::Text, None),
            Type::Bytes => (Kind::Bytes, None),
            Type::Message | Type::Group => (Kind::Message(self.message(field.type_name())?), None),
            Type::Enum => {
                let name = field.type_name().trim_start_matches('.');
                let known = self.named_enums.get(name).copied();
                let known = known.ok_or_else(|| SchemaError::Unknown(name.to_owned()))?;
                (Kind::Enum(known), None)
            }
            Type::Bool => (Kind::Bool, None),
            Type::Int32 | Type::Int64 => (Kind::Int, None),
            Type::Uint32 | Type::Uint64 => (Kind::Unsigned, None),
            Type::Sint32 | Type::Sint64 => (Kind::Zigzag, None),
            Type::Fixed32 => (Kind::Unsigned, Some(4)),
            Type::Fixed64 => (Kind::Unsigned, Some(8)),
            Type::Sfixed32 => (Kind::Int, Some(4)),
            Type::Sfixed64 => (Kind::Int, Some(8)),
            Type::Float => (Kind::Float, Some(4)),
            Type::Double => (Kind::Float, Some(8)),
        };
        let repeated = field.label() == Label::Repeated;
        let alone = field.oneof_index.is_none() && !field.proto3_optional();
        let short = matches!(
            field.r#type(),
            Type::Int32 | Type::Uint32 | Type::Sint32 | Type::Enum
        );
        Ok(Field {
            name: Arc::from(field.name()),
            kind,
            repeated,
            implicit: proto3 && !repeated && alone && !matches!(kind, Kind::Message(_)),
            width,
            short,
        })
    }
}
