//! What the catalog adds to a meaning: which tables the names mean, and what
//! the views among them read.
//!
//! A statement's text says `users`; which table that is hangs on `search_path`
//! and on what there is. Whoever can ask the catalog answers for each table
//! that a statement names ([`Resolved`]), and [`resolve`] writes the answers
//! in. It is a pure function: asking, remembering and knowing which answers are
//! too old are the asker's business.
//!
//! * One candidate: its full name takes the place of the name, everywhere.
//! * Several: all of them are named, and the name as it was written stays, so
//!   that what has to hold for certain does not.
//! * None: the name stays and is `unresolved`.
//!
//! A table that the session made as `TEMP` hides every other of its name from
//! unqualified names, and no other connection sees it: whoever answers says it
//! as one candidate more (see [`Effect::Temporary`](super::Effect::Temporary)
//! and [`Resolved::shadowed_by`]). Names of CTEs never get here: they are no tables.

use std::collections::HashMap;
use std::sync::Arc;

use interceptor_policy::operation::{
    Class, Classes, Column, Move, Output, OutputItem, Sql, Statement, Table,
};

/// What the catalog says of one table that a statement names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Full names of what it can mean. None: the catalog does not know it.
    pub tables: Vec<Table>,
    /// For a view: the tables that it reads, through views on views too, and
    /// which of their columns.
    pub through: Vec<(Table, Vec<Column>)>,
    /// Each of its columns, in order, and the columns of `through` that it is
    /// computed from (for a view, whose definition has to tell it). Without it,
    /// each may come from any.
    pub columns: Option<Vec<(Arc<str>, Vec<Column>)>>,
}

impl Resolved {
    /// The same, where a temporary table of that name may stand before it.
    #[must_use]
    pub fn shadowed_by(mut self, temporary: &str) -> Self {
        let table = Table {
            schema: Some(Arc::from("pg_temp")),
            name: Arc::from(temporary),
        };
        if !self.tables.contains(&table) {
            self.tables.insert(0, table);
        }
        self
    }
}

/// The meaning with the catalog's answers in it. `facts` is asked once for each
/// table of each statement.
#[must_use]
pub fn resolve(sql: &Sql, facts: &dyn Fn(&Table) -> Option<Resolved>) -> Sql {
    Sql {
        statements: sql
            .statements
            .iter()
            .map(|statement| Answers::ask(statement, facts).write_into(statement))
            .collect(),
        resolved: true,
    }
}

/// The answers for one statement.
struct Answers {
    by_table: HashMap<Table, Resolved>,
    /// Any of them is a view: a column of unknown table may be its.
    views: bool,
}

impl Answers {
    fn ask(statement: &Statement, facts: &dyn Fn(&Table) -> Option<Resolved>) -> Self {
        let mut by_table = HashMap::with_capacity(statement.tables.len());
        for table in &statement.tables {
            if !by_table.contains_key(table)
                && let Some(resolved) = facts(table).filter(|resolved| !resolved.tables.is_empty())
            {
                by_table.insert(table.clone(), resolved);
            }
        }
        let views = by_table
            .values()
            .any(|resolved| !resolved.through.is_empty());
        Self { by_table, views }
    }

    fn write_into(&self, statement: &Statement) -> Statement {
        let mut tables = Vec::with_capacity(statement.tables.len());
        let mut through = statement.through.clone();
        let mut unresolved = Vec::new();
        for table in &statement.tables {
            match self.by_table.get(table) {
                Some(resolved) => {
                    for name in names(table, resolved) {
                        add(&mut tables, name);
                    }
                    for (base, _) in &resolved.through {
                        add(&mut through, base.clone());
                    }
                }
                None => {
                    add(&mut tables, table.clone());
                    add(&mut unresolved, table.clone());
                }
            }
        }
        // What a statement makes is not there yet. It makes one thing at most:
        // with two names unknown, neither is excused.
        if unresolved.len() == 1 && creates(statement) {
            unresolved.clear();
        }
        Statement {
            tables,
            columns: self.columns(&statement.columns),
            through,
            unresolved,
            predicates: self.values(&statement.predicates),
            moves: self.moves(&statement.moves),
            output: self.output(&statement.output),
            ..statement.clone()
        }
    }

    /// What values are computed from: [`Answers::columns`], with whole rows as
    /// the columns that they have.
    fn values(&self, columns: &[Column]) -> Vec<Column> {
        let mut all = Vec::with_capacity(columns.len());
        for column in columns {
            match self.row(column) {
                Some(row) => row.into_iter().for_each(|column| add(&mut all, column)),
                None => add(&mut all, column.clone()),
            }
        }
        self.columns(&all)
    }

    /// The columns of the row that a name stands for; `None` where it is a
    /// column, or that is not known. A name that is no column of the table is a
    /// function of its row.
    fn row(&self, column: &Column) -> Option<Vec<Column>> {
        const SYSTEM: [&str; 6] = ["ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"];
        let table = column.table.as_ref()?;
        let resolved = self.by_table.get(table)?;
        let names = resolved.columns.as_ref()?;
        let is_column = &*column.name != "*"
            && (names.iter().any(|(name, _)| *name == column.name)
                || SYSTEM.contains(&&*column.name));
        if is_column || resolved.tables.len() != 1 {
            return None;
        }
        let of = |name: &Arc<str>| Column {
            table: Some(table.clone()),
            name: Arc::clone(name),
        };
        let mut row: Vec<Column> = names.iter().map(|(name, _)| of(name)).collect();
        if &*column.name != "*" {
            row.push(column.clone());
        }
        Some(row)
    }

    /// Each column under the full names of its table, and what it reads behind
    /// a view.
    fn columns(&self, columns: &[Column]) -> Vec<Column> {
        let mut all = Vec::with_capacity(columns.len());
        for column in columns {
            self.named(column, &mut |column| add(&mut all, column));
        }
        for column in columns {
            self.behind(column, &mut |column| add(&mut all, column));
        }
        all
    }

    fn moves(&self, moves: &[Move]) -> Vec<Move> {
        let mut all = Vec::with_capacity(moves.len());
        for Move { column, to } in moves {
            for column in self.values(std::slice::from_ref(column)) {
                add(&mut all, Move { column, to: *to });
            }
        }
        all
    }

    fn named(&self, column: &Column, found: &mut dyn FnMut(Column)) {
        let resolved = column
            .table
            .as_ref()
            .and_then(|table| Some((table, self.by_table.get(table)?)));
        match resolved {
            Some((table, resolved)) => {
                for table in names(table, resolved) {
                    found(Column {
                        table: Some(table),
                        name: Arc::clone(&column.name),
                    });
                }
            }
            None => found(column.clone()),
        }
    }

    /// What a view's column reads. One of unknown table may be any view's.
    fn behind(&self, column: &Column, found: &mut dyn FnMut(Column)) {
        if !self.views {
            return;
        }
        match &column.table {
            Some(table) => {
                if let Some(resolved) = self.by_table.get(table) {
                    bases(resolved, &column.name, found);
                }
            }
            None => {
                for resolved in self.by_table.values() {
                    bases(resolved, &column.name, found);
                }
            }
        }
    }

    fn output(&self, output: &Output) -> Output {
        let Output::Items(items) = output else {
            return output.clone();
        };
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            match item {
                OutputItem::Column(column) => all.push(self.column_item(column)),
                OutputItem::Expression(columns) => {
                    all.push(OutputItem::Expression(self.values(columns)));
                }
                OutputItem::Spread(columns) => {
                    all.push(OutputItem::Spread(self.values(columns)));
                }
                OutputItem::Unclear => all.push(OutputItem::Unclear),
                OutputItem::Star(tables) => match self.star(tables) {
                    Some(items) => all.extend(items),
                    None => return Output::Unclear,
                },
            }
        }
        Output::Items(all)
    }

    fn column_item(&self, column: &Column) -> OutputItem {
        if self.row(column).is_some() {
            return OutputItem::Expression(self.values(std::slice::from_ref(column)));
        }
        let mut behind = Vec::new();
        self.behind(column, &mut |base| add(&mut behind, base));
        if behind.is_empty() {
            return OutputItem::Column(self.one(column));
        }
        let mut columns = vec![self.one(column)];
        for base in behind {
            add(&mut columns, base);
        }
        OutputItem::Expression(columns)
    }

    /// The column under its one name: the full one where there is one only.
    fn one(&self, column: &Column) -> Column {
        Column {
            table: column.table.as_ref().map(|table| self.table(table)),
            name: Arc::clone(&column.name),
        }
    }

    fn table(&self, table: &Table) -> Table {
        match self
            .by_table
            .get(table)
            .map(|known| known.tables.as_slice())
        {
            Some([only]) => only.clone(),
            _ => table.clone(),
        }
    }

    /// A star over one table or view is its columns, one by one, where they are
    /// known. One over several merges columns by `USING`, so that no position is
    /// certain: tables' columns are then known by name alone.
    fn star(&self, tables: &[Table]) -> Option<Vec<OutputItem>> {
        let is_view = |table: &Table| {
            self.by_table
                .get(table)
                .is_some_and(|resolved| !resolved.through.is_empty())
        };
        if let [table] = tables {
            let known = self.by_table.get(table);
            let columns = known
                .filter(|known| known.tables.len() == 1)
                .and_then(|known| known.columns.as_ref());
            return match columns {
                Some(columns) => Some(
                    columns
                        .iter()
                        .map(|(name, _)| {
                            self.column_item(&Column {
                                table: Some(table.clone()),
                                name: Arc::clone(name),
                            })
                        })
                        .collect(),
                ),
                None if is_view(table) => None,
                None => Some(vec![OutputItem::Star(vec![self.table(table)])]),
            };
        }
        if tables.iter().any(is_view) {
            let rows: Vec<Column> = tables
                .iter()
                .map(|table| Column {
                    table: Some(table.clone()),
                    name: Arc::from("*"),
                })
                .collect();
            return Some(vec![OutputItem::Spread(self.values(&rows))]);
        }
        let tables = tables.iter().map(|table| self.table(table)).collect();
        Some(vec![OutputItem::Star(tables)])
    }
}

/// The names that a table goes by from now on.
fn names(table: &Table, resolved: &Resolved) -> Vec<Table> {
    match resolved.tables.as_slice() {
        [only] => vec![only.clone()],
        several => {
            let mut names = vec![table.clone()];
            for candidate in several {
                add(&mut names, candidate.clone());
            }
            names
        }
    }
}

/// The columns of tables behind column `name` of what was resolved.
fn bases(resolved: &Resolved, name: &str, found: &mut dyn FnMut(Column)) {
    match &resolved.columns {
        Some(columns) => {
            for (_, bases) in columns
                .iter()
                .filter(|(column, _)| name == "*" || **column == *name)
            {
                bases.iter().cloned().for_each(&mut *found);
            }
        }
        None => {
            for (_, columns) in &resolved.through {
                columns.iter().cloned().for_each(&mut *found);
            }
        }
    }
}

/// Whether it makes a relation that was not there.
fn creates(statement: &Statement) -> bool {
    let makes = Classes::of(Class::Ddl);
    statement.classes.contains_all(makes)
        && statement
            .tags
            .first()
            .is_some_and(|tag| tag.starts_with("CREATE ") || *tag == "SELECT INTO")
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::super::classify;
    use super::*;

    fn table(name: &str) -> Table {
        match name.split_once('.') {
            Some((schema, name)) => Table {
                schema: Some(Arc::from(schema)),
                name: Arc::from(name),
            },
            None => Table {
                schema: None,
                name: Arc::from(name),
            },
        }
    }

    fn column(name: &str) -> Column {
        let (of, name) = name.rsplit_once('.').unwrap();
        Column {
            table: Some(table(of)),
            name: Arc::from(name),
        }
    }

    fn view(columns: bool) -> Resolved {
        Resolved {
            tables: vec![table("public.people")],
            through: vec![(
                table("public.users"),
                vec![column("public.users.name"), column("public.users.ssn")],
            )],
            columns: columns.then(|| {
                vec![
                    (Arc::from("who"), vec![column("public.users.name")]),
                    (Arc::from("number"), vec![column("public.users.ssn")]),
                ]
            }),
        }
    }

    /// `users` and `orders` in `public`, `twice` in two schemas, the view
    /// `people`, nothing else.
    fn facts(table_named: &Table) -> Option<Resolved> {
        let tables = match table_named.to_string().as_str() {
            "users" | "public.users" => vec![table("public.users")],
            "orders" => vec![table("public.orders")],
            "twice" => vec![table("a.twice"), table("b.twice")],
            "people" => return Some(view(true)),
            "opaque" => {
                return Some(Resolved {
                    tables: vec![table("public.opaque")],
                    ..view(false)
                });
            }
            "temporary" => {
                return Some(
                    Resolved {
                        tables: vec![table("public.temporary")],
                        ..Resolved::default()
                    }
                    .shadowed_by("temporary"),
                );
            }
            _ => return None,
        };
        Some(Resolved {
            tables,
            ..Resolved::default()
        })
    }

    fn resolved(text: &str) -> Statement {
        let sql = resolve(&classify(text), &facts);
        assert!(sql.resolved);
        sql.statements[0].clone()
    }

    fn shown<T: ToString>(list: &[T]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_candidate_gives_its_full_name_to_every_mention() {
        let read = resolved("SELECT u.ssn, lower(name), u.* FROM users u WHERE u.id = 1");
        assert_eq!(shown(&read.tables), ["public.users"]);
        assert!(shown(&read.columns).contains(&"public.users.ssn".to_owned()));
        assert!(!shown(&read.columns).contains(&"users.ssn".to_owned()));
        assert_eq!(
            read.output,
            Output::Items(vec![
                OutputItem::Column(column("public.users.ssn")),
                OutputItem::Expression(vec![column("public.users.name")]),
                OutputItem::Star(vec![table("public.users")]),
            ])
        );
        assert!(read.unresolved.is_empty() && read.through.is_empty());
    }

    #[test]
    fn several_candidates_are_all_named_and_the_written_name_stays() {
        let read = resolved("SELECT x FROM twice");
        assert_eq!(shown(&read.tables), ["twice", "a.twice", "b.twice"]);
        assert_eq!(shown(&read.columns), ["twice.x", "a.twice.x", "b.twice.x"]);
    }

    #[test]
    fn what_the_catalog_does_not_know_is_unresolved() {
        let read = resolved("SELECT a FROM users, nowhere");
        assert_eq!(shown(&read.tables), ["public.users", "nowhere"]);
        assert_eq!(shown(&read.unresolved), ["nowhere"]);
    }

    #[test]
    fn what_a_statement_makes_is_not_missed() {
        for text in [
            "CREATE TABLE fresh (id int REFERENCES users)",
            "CREATE TABLE fresh AS SELECT * FROM users",
            "SELECT * INTO fresh FROM users",
            "CREATE VIEW fresh AS SELECT 1 FROM orders",
        ] {
            assert!(resolved(text).unresolved.is_empty(), "{text}");
        }
        let two = resolved("CREATE TABLE fresh AS SELECT * FROM nowhere");
        assert_eq!(two.unresolved.len(), 2);
        assert_eq!(resolved("DROP TABLE nowhere").unresolved.len(), 1);
    }

    #[test]
    fn a_views_tables_and_columns_are_reached_through_it() {
        let read = resolved("SELECT upper(number) FROM people");
        assert_eq!(shown(&read.tables), ["public.people"]);
        assert_eq!(shown(&read.through), ["public.users"]);
        assert_eq!(
            shown(&read.columns),
            ["public.people.number", "public.users.ssn"]
        );
        assert_eq!(
            read.output,
            Output::Items(vec![OutputItem::Expression(vec![
                column("public.people.number"),
                column("public.users.ssn"),
            ])])
        );
        let harmless = resolved("SELECT who FROM people");
        assert!(!shown(&harmless.columns).contains(&"public.users.ssn".to_owned()));
    }

    #[test]
    fn a_view_whose_columns_are_not_told_apart_shows_all_that_it_reads() {
        let read = resolved("SELECT anything FROM opaque");
        assert!(shown(&read.columns).contains(&"public.users.ssn".to_owned()));
        assert_eq!(resolved("SELECT * FROM opaque").output, Output::Unclear);
    }

    #[test]
    fn a_star_over_a_view_is_its_columns() {
        let read = resolved("SELECT * FROM orders, people");
        let Output::Items(items) = read.output else {
            panic!("unclear");
        };
        assert_eq!(items.len(), 3);
        assert_eq!(items[0], OutputItem::Star(vec![table("public.orders")]));
        assert_eq!(
            items[2],
            OutputItem::Expression(vec![
                column("public.people.number"),
                column("public.users.ssn")
            ])
        );
    }

    #[test]
    fn a_column_of_unknown_table_may_be_a_views() {
        let read = resolved("SELECT number FROM orders JOIN people ON true");
        assert!(shown(&read.columns).contains(&"public.users.ssn".to_owned()));
    }

    #[test]
    fn a_name_that_a_temporary_table_may_hide_is_not_certain() {
        let read = resolved("SELECT a FROM temporary");
        assert_eq!(
            shown(&read.tables),
            ["temporary", "pg_temp.temporary", "public.temporary"]
        );
    }

    #[test]
    fn a_name_of_a_cte_is_not_asked_for() {
        let read = resolved("WITH nowhere AS (SELECT ssn FROM users) SELECT * FROM nowhere");
        assert_eq!(shown(&read.tables), ["public.users"]);
        assert!(read.unresolved.is_empty());
    }
}
