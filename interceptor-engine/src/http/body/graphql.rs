//! GraphQL: which operations a request runs, and which fields they ask for.
//!
//! Spec: GraphQL (October 2021), section 2; GraphQL over HTTP.

use std::collections::HashMap;

use apollo_parser::Parser;
use apollo_parser::cst::{Definition, Selection, SelectionSet};
use interceptor_policy::operation::http::{GraphQlOperation, Json};

use super::shared;

/// Tokens of one document.
const TOKEN_LIMIT: usize = 20_000;
/// How deep selections may be nested, in the text and through fragments.
const DEPTH_LIMIT: usize = 64;
/// Fields of one operation, fragments followed.
const FIELD_LIMIT: usize = 4096;

/// The documents that a body holds, each with the name of the operation that it
/// chooses: of one request, or of each of a batch. Where a key is there twice,
/// in every reading; where two names are chosen, as if none were.
#[must_use]
pub fn requests(documents: &[Json]) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    for document in documents {
        match document {
            Json::List(batch) => batch.iter().for_each(|one| request(one, &mut found)),
            one => request(one, &mut found),
        }
    }
    found
}

fn request(body: &Json, found: &mut Vec<(String, Option<String>)>) {
    let mut names = body.at("operationName").filter_map(Json::text);
    let chosen = match (names.next(), names.next()) {
        (Some(name), None) => Some(name.to_owned()),
        _ => None,
    };
    for document in body.at("query").filter_map(Json::text) {
        found.push((document.to_owned(), chosen.clone()));
    }
}

/// The operations of a document that may run. `None` where it is none, is too
/// deep or asks for too much to be looked at.
#[must_use]
pub fn operations(document: &str, chosen: Option<&str>) -> Option<Vec<GraphQlOperation>> {
    let tree = Parser::new(document)
        .recursion_limit(DEPTH_LIMIT)
        .token_limit(TOKEN_LIMIT)
        .parse();
    if tree.errors().next().is_some() {
        return None;
    }
    let mut fragments = HashMap::new();
    let mut operations = Vec::new();
    for definition in tree.document().definitions() {
        match definition {
            Definition::FragmentDefinition(fragment) => {
                let name = fragment.fragment_name()?.name()?.text().to_string();
                // Two of one name are no document.
                if fragments.insert(name, fragment.selection_set()?).is_some() {
                    return None;
                }
            }
            Definition::OperationDefinition(operation) => operations.push(operation),
            // A schema is never executed.
            _ => return None,
        }
    }
    let mut found = Vec::new();
    for operation in operations {
        let name = operation.name().map(|name| name.text().to_string());
        let kind = match operation.operation_type() {
            None => "query",
            Some(kind) if kind.mutation_token().is_some() => "mutation",
            Some(kind) if kind.subscription_token().is_some() => "subscription",
            Some(_) => "query",
        };
        let mut fields = Fields {
            fragments: &fragments,
            found: Vec::new(),
        };
        fields.add(&operation.selection_set()?, "", DEPTH_LIMIT)?;
        found.push(GraphQlOperation {
            kind: shared(kind),
            name: name.as_deref().map(shared),
            fields: fields.found.iter().map(|field| shared(field)).collect(),
        });
    }
    if found.is_empty() {
        return None;
    }
    // An operation of this name that is not there runs nothing, or whatever the
    // server likes.
    if let Some(chosen) = chosen
        && found.iter().any(|one| one.name.as_deref() == Some(chosen))
    {
        found.retain(|one| one.name.as_deref() == Some(chosen));
    }
    Some(found)
}

struct Fields<'a> {
    fragments: &'a HashMap<String, SelectionSet>,
    found: Vec<String>,
}

impl Fields<'_> {
    fn add(&mut self, set: &SelectionSet, above: &str, depth: usize) -> Option<()> {
        let deeper = depth.checked_sub(1)?;
        for selection in set.selections() {
            match selection {
                Selection::Field(field) => {
                    let name = field.name()?.text().to_string();
                    let path = if above.is_empty() {
                        name
                    } else {
                        format!("{above}.{name}")
                    };
                    if !self.found.contains(&path) {
                        if self.found.len() >= FIELD_LIMIT {
                            return None;
                        }
                        self.found.push(path.clone());
                    }
                    if let Some(set) = field.selection_set() {
                        self.add(&set, &path, deeper)?;
                    }
                }
                Selection::FragmentSpread(spread) => {
                    let name = spread.fragment_name()?.name()?.text().to_string();
                    let set = self.fragments.get(&name)?;
                    self.add(set, above, deeper)?;
                }
                Selection::InlineFragment(inline) => {
                    self.add(&inline.selection_set()?, above, deeper)?;
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &str, chosen: Option<&str>) -> Option<Vec<String>> {
        let operations = operations(document, chosen)?;
        Some(
            operations
                .iter()
                .map(|one| {
                    let name = one.name.as_deref().unwrap_or("-");
                    format!("{} {name}: {}", one.kind, one.fields.join(" "))
                })
                .collect(),
        )
    }

    #[test]
    fn an_operation_is_read_with_its_fields_under_their_own_names() {
        let document =
            "mutation M($x: Int) { alias: deleteUser(id: $x) { id email @include(if: true) } }";
        assert_eq!(
            read(document, None).unwrap(),
            ["mutation M: deleteUser deleteUser.id deleteUser.email"]
        );
        assert_eq!(read("{ a }", None).unwrap(), ["query -: a"]);
    }

    #[test]
    fn fragments_hide_nothing() {
        let document = "query { user { ...F ... on Admin { secret } } } fragment F on User { ssn }";
        assert_eq!(
            read(document, None).unwrap(),
            ["query -: user user.ssn user.secret"]
        );
    }

    #[test]
    fn all_operations_count_where_none_is_chosen_and_one_where_it_is() {
        let document = "query A { a } mutation B { b }";
        assert_eq!(read(document, None).unwrap().len(), 2);
        assert_eq!(read(document, Some("B")).unwrap(), ["mutation B: b"]);
        assert_eq!(read(document, Some("C")).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_document_or_goes_round_in_circles_is_not_read() {
        for document in [
            "",
            "select * from users",
            "{ a",
            "{ ...F } fragment F on X { ...F }",
            "{ ...Nowhere }",
            "type User { id: ID }",
        ] {
            assert_eq!(read(document, None), None, "{document}");
        }
        let deep = format!("{}a{}", "{a".repeat(200), "}".repeat(200));
        assert_eq!(read(&deep, None), None);
    }

    #[test]
    fn fragments_that_multiply_are_given_up() {
        let mut document = String::from("{ ...F0 }");
        for level in 0..30 {
            let next = level + 1;
            document.push_str(&format!(
                " fragment F{level} on X {{ a{level} {{ ...F{next} }} b{level} {{ ...F{next} }} }}"
            ));
        }
        document.push_str(" fragment F30 on X { end }");
        assert_eq!(read(&document, None), None);
    }
}
