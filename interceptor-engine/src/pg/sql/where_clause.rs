//! Whether a `WHERE` selects.
//!
//! A condition that looks at no row (`true`, `1 = 1`, `length('a') = 1`) holds
//! for all of them or for none: it counts as always true unless it folds to
//! false. So does one that compares something with itself, or with everything
//! else there is (`x = x`, `x IS NULL OR x IS NOT NULL`): NULLs aside it is
//! true. What takes knowing the data (`id > 0`) counts as selecting.

use interceptor_policy::operation::WhereClause;
use pg_query::Node;
use pg_query::protobuf as pb;
use pg_query::protobuf::{AExprKind, BoolExprType, BoolTestType, NullTestType, SubLinkType};

use super::ast::{self, Ast};

/// What became of a condition.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Bool(bool),
    Null,
    Int(i64),
    Text(String),
    /// The same for every row, but not worked out.
    Constant,
    /// Depends on the row, or on what is in other tables.
    Row,
}

/// The answer, and whether it rests on the values of integer constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) clause: WhereClause,
    pub(super) by_literals: bool,
}

/// Judges an optional `WHERE`.
pub(super) fn judge(condition: Option<Ast<'_>>) -> Judged {
    let mut fold = Fold { by_literals: false };
    let clause = match condition {
        None => WhereClause::Missing,
        Some(condition) => match fold.value(condition) {
            Value::Row | Value::Null | Value::Bool(false) => WhereClause::Present,
            Value::Text(text) if boolean(&text) == Some(false) => WhereClause::Present,
            _ => WhereClause::AlwaysTrue,
        },
    };
    Judged {
        clause,
        by_literals: fold.by_literals,
    }
}

/// Whether `condition` is false for every row.
pub(super) fn never(condition: Option<Ast<'_>>) -> (bool, bool) {
    let mut fold = Fold { by_literals: false };
    let value = condition.map(|condition| fold.value(condition));
    (
        matches!(value, Some(Value::Bool(false) | Value::Null)),
        fold.by_literals,
    )
}

struct Fold {
    /// An integer's value was looked at.
    by_literals: bool,
}

impl Fold {
    fn value(&mut self, ast: Ast<'_>) -> Value {
        match ast {
            Ast::AConst(constant) => constant_value(constant),
            Ast::BoolExpr(expr) => self.bool_expr(expr),
            Ast::AExpr(expr) => self.operator(expr),
            Ast::NullTest(test) => match (self.optional(&test.arg), test.nulltesttype()) {
                (Value::Row, _) => Value::Row,
                (Value::Constant, _) => Value::Constant,
                (value, kind) => {
                    Value::Bool((value == Value::Null) == (kind == NullTestType::IsNull))
                }
            },
            Ast::BooleanTest(test) => {
                let value = self.optional(&test.arg);
                let known = match value {
                    Value::Bool(value) => Some(value),
                    Value::Null => None,
                    Value::Row => return Value::Row,
                    _ => return Value::Constant,
                };
                Value::Bool(match test.booltesttype() {
                    BoolTestType::IsTrue => known == Some(true),
                    BoolTestType::IsNotTrue => known != Some(true),
                    BoolTestType::IsFalse => known == Some(false),
                    BoolTestType::IsNotFalse => known != Some(false),
                    BoolTestType::IsUnknown => known.is_none(),
                    _ => known.is_some(),
                })
            }
            Ast::TypeCast(cast) => match self.optional(&cast.arg) {
                Value::Row => Value::Row,
                Value::Null => Value::Null,
                Value::Text(text) if is_boolean(cast) => {
                    boolean(&text).map_or(Value::Constant, Value::Bool)
                }
                Value::Bool(value) if is_boolean(cast) => Value::Bool(value),
                _ => Value::Constant,
            },
            Ast::CaseExpr(case) => self.case(case),
            Ast::CoalesceExpr(coalesce) => {
                let mut row = false;
                for arg in &coalesce.args {
                    match self.node(arg) {
                        Value::Null => {}
                        Value::Row => row = true,
                        value if !row => return value,
                        _ => {}
                    }
                }
                if row { Value::Row } else { Value::Null }
            }
            Ast::CollateClause(collate) => self.optional(&collate.arg),
            Ast::SubLink(link) => self.sublink(link),
            Ast::ColumnRef(_) | Ast::CurrentOfExpr(_) => Value::Row,
            other => self.all_of(other),
        }
    }

    fn node(&mut self, node: &Node) -> Value {
        ast::from(node).map_or(Value::Constant, |ast| self.value(ast))
    }

    fn optional(&mut self, node: &Option<Box<Node>>) -> Value {
        ast::of(node).map_or(Value::Constant, |ast| self.value(ast))
    }

    /// Constant if all that it holds is.
    fn all_of(&mut self, ast: Ast<'_>) -> Value {
        let mut value = Value::Constant;
        ast.children(&mut |child| {
            if value != Value::Row && self.value(child) == Value::Row {
                value = Value::Row;
            }
        });
        value
    }

    fn bool_expr(&mut self, expr: &pb::BoolExpr) -> Value {
        let kind = expr.boolop();
        if kind == BoolExprType::NotExpr {
            return match expr.args.first().map(|arg| self.node(arg)) {
                Some(Value::Bool(value)) => Value::Bool(!value),
                Some(Value::Row) => Value::Row,
                Some(Value::Null) => Value::Null,
                _ => Value::Constant,
            };
        }
        // AND is over at the first false, OR at the first true.
        let over = kind == BoolExprType::OrExpr;
        if over && self.covers_everything(&expr.args) {
            return Value::Bool(true);
        }
        let (mut row, mut constant, mut null) = (false, false, false);
        for arg in &expr.args {
            match self.node(arg) {
                Value::Bool(value) if value == over => return Value::Bool(over),
                Value::Bool(_) => {}
                Value::Null => null = true,
                Value::Row => row = true,
                _ => constant = true,
            }
        }
        match (row, constant) {
            // A constant that may be true makes an OR true for all rows; in an
            // AND the row still decides.
            (true, true) if over => Value::Constant,
            (true, _) => Value::Row,
            (false, true) => Value::Constant,
            (false, false) if null => Value::Null,
            (false, false) => Value::Bool(!over),
        }
    }

    /// Whether two arms of an `OR` are each other's opposite.
    fn covers_everything(&mut self, args: &[Node]) -> bool {
        // Longer ones are not written by hand, and the work grows as the square.
        const MOST: usize = 16;
        let args: Vec<_> = args.iter().take(MOST).filter_map(ast::from).collect();
        args.iter().enumerate().any(|(at, one)| {
            args.iter()
                .skip(at + 1)
                .any(|other| self.opposite(*one, *other) || self.opposite(*other, *one))
        })
    }

    fn opposite(&mut self, one: Ast<'_>, other: Ast<'_>) -> bool {
        match (one, other) {
            (_, Ast::BoolExpr(not)) if not.boolop() == BoolExprType::NotExpr => not
                .args
                .first()
                .and_then(ast::from)
                .is_some_and(|arg| self.same(one, arg)),
            (Ast::NullTest(one), Ast::NullTest(other)) => {
                one.nulltesttype != other.nulltesttype && self.same_optional(&one.arg, &other.arg)
            }
            (Ast::AExpr(one), Ast::AExpr(other)) => {
                matches!(
                    (operator_name(one), operator_name(other)),
                    ("=", "<>" | "!=") | ("<", ">=") | (">", "<=")
                ) && self.same_optional(&one.lexpr, &other.lexpr)
                    && self.same_optional(&one.rexpr, &other.rexpr)
            }
            _ => false,
        }
    }

    fn operator(&mut self, expr: &pb::AExpr) -> Value {
        let itself = match expr.kind() {
            AExprKind::AexprOp => match operator_name(expr) {
                "=" | "<=" | ">=" => Some(true),
                "<>" | "!=" | "<" | ">" => Some(false),
                _ => None,
            },
            AExprKind::AexprNotDistinct => Some(true),
            AExprKind::AexprDistinct => Some(false),
            AExprKind::AexprLike | AExprKind::AexprIlike | AExprKind::AexprSimilar => {
                // LIKE '%' is true of every text.
                let pattern = self.optional(&expr.rexpr);
                if let Value::Text(pattern) = &pattern
                    && !pattern.is_empty()
                    && pattern.bytes().all(|byte| byte == b'%')
                {
                    return Value::Bool(
                        operator_name(expr) == "~~"
                            || operator_name(expr) == "~~*"
                            || operator_name(expr) == "~",
                    );
                }
                Some(operator_name(expr).starts_with('~'))
            }
            AExprKind::AexprIn
            | AExprKind::AexprOpAny
            | AExprKind::AexprBetween
            | AExprKind::AexprBetweenSym => {
                return self.among(expr);
            }
            _ => None,
        };
        if let Some(itself) = itself
            && self.same_optional(&expr.lexpr, &expr.rexpr)
        {
            return Value::Bool(itself);
        }
        let left = self.optional(&expr.lexpr);
        let right = self.optional(&expr.rexpr);
        if expr.kind() == AExprKind::AexprOp
            && let Some(value) = self.compare(operator_name(expr), &left, &right)
        {
            return Value::Bool(value);
        }
        if left == Value::Row || right == Value::Row {
            Value::Row
        } else {
            Value::Constant
        }
    }

    fn compare(&mut self, operator: &str, left: &Value, right: &Value) -> Option<bool> {
        let order = match (left, right) {
            (Value::Int(left), Value::Int(right)) => {
                self.by_literals = true;
                left.cmp(right)
            }
            // Text is ordered by a collation; equality is not.
            (Value::Text(left), Value::Text(right)) if matches!(operator, "=" | "<>" | "!=") => {
                left.cmp(right)
            }
            (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
            _ => return None,
        };
        Some(match operator {
            "=" => order.is_eq(),
            "<>" | "!=" => order.is_ne(),
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            ">=" => order.is_ge(),
            _ => return None,
        })
    }

    /// `IN`, `= ANY`, `BETWEEN`: true when the value itself is among those it
    /// is compared with.
    fn among(&mut self, expr: &pb::AExpr) -> Value {
        let Some(left) = ast::of(&expr.lexpr) else {
            return Value::Constant;
        };
        let items: &[Node] = match ast::of(&expr.rexpr) {
            Some(Ast::List(list)) => &list.items,
            Some(Ast::AArrayExpr(array)) => &array.elements,
            _ => &[],
        };
        let between = matches!(
            expr.kind(),
            AExprKind::AexprBetween | AExprKind::AexprBetweenSym
        );
        let positive = between || operator_name(expr) == "=";
        let mut value = self.value(left);
        let mut all = !items.is_empty();
        let mut any = false;
        for item in items {
            let same = ast::from(item).is_some_and(|item| self.same(left, item));
            any |= same;
            all &= same;
            if self.node(item) == Value::Row && value != Value::Row {
                value = Value::Row;
            }
        }
        if items.is_empty() && self.optional(&expr.rexpr) == Value::Row {
            value = Value::Row;
        }
        if positive && (if between { all } else { any }) {
            return Value::Bool(true);
        }
        if value == Value::Row {
            Value::Row
        } else {
            Value::Constant
        }
    }

    fn case(&mut self, case: &pb::CaseExpr) -> Value {
        let mut results: Vec<Value> = Vec::new();
        let mut row = self.optional(&case.arg) == Value::Row && case.arg.is_some();
        for when in &case.args {
            if let Some(Ast::CaseWhen(when)) = ast::from(when) {
                row |= self.optional(&when.expr) == Value::Row;
                results.push(self.optional(&when.result));
            }
        }
        results.push(match &case.defresult {
            Some(_) => self.optional(&case.defresult),
            None => Value::Null,
        });
        self.by_literals |= results.iter().any(|result| matches!(result, Value::Int(_)));
        match results.first() {
            Some(first) if *first != Value::Row && results.iter().all(|result| result == first) => {
                first.clone()
            }
            _ if row || results.contains(&Value::Row) => Value::Row,
            _ => Value::Constant,
        }
    }

    /// A subquery that reads nothing is as constant as what it selects.
    fn sublink(&mut self, link: &pb::SubLink) -> Value {
        let Some(Ast::SelectStmt(select)) = ast::of(&link.subselect) else {
            return Value::Row;
        };
        if !select.from_clause.is_empty() || select.larg.is_some() || select.with_clause.is_some() {
            return Value::Row;
        }
        match (link.sub_link_type(), select.target_list.as_slice()) {
            (SubLinkType::ExistsSublink, _)
                if select.where_clause.is_none()
                    && select.having_clause.is_none()
                    && select.limit_count.is_none()
                    && select.limit_offset.is_none() =>
            {
                Value::Bool(true)
            }
            (SubLinkType::ExprSublink, [item]) if select.where_clause.is_none() => {
                match ast::from(item) {
                    Some(Ast::ResTarget(target)) => self.optional(&target.val),
                    _ => Value::Constant,
                }
            }
            _ => self.all_of(Ast::SubLink(link)),
        }
    }

    fn same_optional(&mut self, one: &Option<Box<Node>>, other: &Option<Box<Node>>) -> bool {
        match (ast::of(one), ast::of(other)) {
            (Some(one), Some(other)) => self.same(one, other),
            (None, None) => true,
            _ => false,
        }
    }

    fn same_list(&mut self, one: &[Node], other: &[Node]) -> bool {
        one.len() == other.len()
            && one
                .iter()
                .zip(other)
                .all(|(one, other)| match (ast::from(one), ast::from(other)) {
                    (Some(one), Some(other)) => self.same(one, other),
                    _ => false,
                })
    }

    /// Whether two expressions are written the same, white space aside. A
    /// column is the same with and without its table's name.
    fn same(&mut self, one: Ast<'_>, other: Ast<'_>) -> bool {
        match (one, other) {
            (Ast::ColumnRef(one), Ast::ColumnRef(other)) => {
                let (one, other) = (ast::names(&one.fields), ast::names(&other.fields));
                !one.is_empty()
                    && (one.ends_with(&other) || other.ends_with(&one))
                    && !other.is_empty()
            }
            (Ast::AConst(one), Ast::AConst(other)) => {
                match (constant_value(one), constant_value(other)) {
                    (Value::Int(one), Value::Int(other)) => {
                        self.by_literals = true;
                        one == other
                    }
                    (Value::Constant, _) | (_, Value::Constant) => one.val == other.val,
                    (one, other) => one == other,
                }
            }
            (Ast::ParamRef(one), Ast::ParamRef(other)) => one.number == other.number,
            (Ast::AExpr(one), Ast::AExpr(other)) => {
                one.kind == other.kind
                    && ast::names(&one.name) == ast::names(&other.name)
                    && self.same_optional(&one.lexpr, &other.lexpr)
                    && self.same_optional(&one.rexpr, &other.rexpr)
            }
            (Ast::BoolExpr(one), Ast::BoolExpr(other)) => {
                one.boolop == other.boolop && self.same_list(&one.args, &other.args)
            }
            (Ast::FuncCall(one), Ast::FuncCall(other)) => {
                ast::names(&one.funcname) == ast::names(&other.funcname)
                    && self.same_list(&one.args, &other.args)
            }
            (Ast::CoalesceExpr(one), Ast::CoalesceExpr(other)) => {
                self.same_list(&one.args, &other.args)
            }
            (Ast::RowExpr(one), Ast::RowExpr(other)) => self.same_list(&one.args, &other.args),
            (Ast::List(one), Ast::List(other)) => self.same_list(&one.items, &other.items),
            (Ast::AArrayExpr(one), Ast::AArrayExpr(other)) => {
                self.same_list(&one.elements, &other.elements)
            }
            (Ast::TypeCast(one), Ast::TypeCast(other)) => {
                let name = |cast: &pb::TypeCast| {
                    cast.type_name.as_ref().map(|name| {
                        ast::names(&name.names)
                            .last()
                            .map(|last| (*last).to_owned())
                    })
                };
                name(one) == name(other) && self.same_optional(&one.arg, &other.arg)
            }
            _ => false,
        }
    }
}

fn operator_name(expr: &pb::AExpr) -> &str {
    expr.name.last().and_then(ast::name).unwrap_or_default()
}

fn constant_value(constant: &pb::AConst) -> Value {
    use pg_query::protobuf::a_const::Val;
    if constant.isnull {
        return Value::Null;
    }
    match &constant.val {
        Some(Val::Ival(value)) => Value::Int(i64::from(value.ival)),
        Some(Val::Boolval(value)) => Value::Bool(value.boolval),
        Some(Val::Sval(value)) => Value::Text(value.sval.clone()),
        _ => Value::Constant,
    }
}

fn is_boolean(cast: &pb::TypeCast) -> bool {
    cast.type_name.as_ref().is_some_and(|name| {
        matches!(
            name.names.last().and_then(ast::name),
            Some("bool" | "boolean")
        )
    })
}

/// A text as PostgreSQL reads it into a boolean: any beginning of a word.
fn boolean(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if text == "1" || begins("true", 1) || begins("yes", 1) || begins("on", 2) {
        Some(true)
    } else if text == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
        Some(false)
    } else {
        None
    }
}
