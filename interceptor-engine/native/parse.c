/*
 * Calls PostgreSQL's parsers, of SQL and of PL/pgSQL, for one text.
 *
 * libpg_query's own entry points put a pipe in the place of the process's
 * standard error for as long as they parse, to catch warnings. That is eleven
 * system calls a text; it takes what other threads log, corrupts standard error
 * for good when two threads parse at once, and fails when the process is out
 * of descriptors. This does the same without it; warnings are dropped.
 *
 * The declarations are those of libpg_query 18; they are part of its source,
 * not of its header.
 */
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct MemoryContextData *MemoryContext;
typedef struct
{
	size_t		len;
	char	   *data;
} Protobuf;

extern __thread sigjmp_buf *PG_exception_stack;
extern __thread void *error_context_stack;
extern __thread MemoryContext CurrentMemoryContext;
extern __thread int log_min_messages;
extern __thread bool standard_conforming_strings;

extern MemoryContext pg_query_enter_memory_context(void);
extern void pg_query_exit_memory_context(MemoryContext context);
extern Protobuf pg_query_nodes_to_protobuf(const void *tree);
extern void *raw_parser(const char *text, int mode);
extern void FlushErrorState(void);


/* The beginnings of structures of plpgsql.h. */
typedef struct
{
	char	   *query;
	int			parse_mode;
} PLpgSQL_expr;
typedef struct
{
	int			dtype;
	int			dno;
	char	   *refname;
	int			lineno;
	bool		isconst;
	bool		notnull;
	PLpgSQL_expr *default_val;
} PLpgSQL_variable;

extern __thread int plpgsql_nDatums;
extern __thread PLpgSQL_variable **plpgsql_Datums;
extern void *plpgsql_compile_inline(char *source);
extern char *plpgsqlToJSON(void *function);

/* PLPGSQL_DTYPE_REC */
#define RECORD 2
/* PANIC: nothing else is worth a message. */
#define NO_MESSAGES 23

/*
 * Appends `text` and its NUL. Frees everything and gives NULL where memory is
 * out, from where on it stays so.
 */
static void
append(Protobuf *to, const char *text)
{
	size_t		more = strlen(text) + 1;
	char	   *data = realloc(to->data, to->len + more);

	if (data == NULL)
	{
		free(to->data);
		to->data = NULL;
		to->len = 0;
		return;
	}
	memcpy(data + to->len, text, more);
	to->data = data;
	to->len += more;
}

/*
 * A block of PL/pgSQL as JSON, and the initial values of records, which the
 * JSON lacks; each ends with a NUL.
 */
static Protobuf
plpgsql(char *text)
{
	Protobuf	result = {0, NULL};
	int			at;
	char	   *json = plpgsqlToJSON(plpgsql_compile_inline(text));

	append(&result, json);
	for (at = 0; at < plpgsql_nDatums && result.data != NULL; at++)
	{
		PLpgSQL_variable *datum = plpgsql_Datums[at];

		if (datum->dtype == RECORD && datum->default_val != NULL)
			append(&result, datum->default_val->query);
	}
	return result;
}

/* Not one of RawParseMode's: a block of PL/pgSQL. */
#define MODE_PLPGSQL (-1)

/*
 * What `text` is by the grammar of `mode` (a RawParseMode, or the above): the
 * encoded tree, or as `plpgsql` gives it. In memory that the caller frees;
 * `data` is NULL where the grammar refuses the text, or where it is nested too
 * deeply.
 */
Protobuf
interceptor_pg_parse(const char *text, int mode, bool conforming)
{
	sigjmp_buf *outer_exception_stack;
	void	   *outer_context_stack;
	sigjmp_buf	here;
	MemoryContext context = pg_query_enter_memory_context();
	/* Volatile: set after sigsetjmp and read after a jump. */
	volatile Protobuf result = {0, NULL};

	log_min_messages = NO_MESSAGES;
	standard_conforming_strings = conforming;
	outer_exception_stack = PG_exception_stack;
	outer_context_stack = error_context_stack;
	if (sigsetjmp(here, 0) == 0)
	{
		Protobuf	read;

		PG_exception_stack = &here;
		read = mode == MODE_PLPGSQL
			? plpgsql((char *) text)
			: pg_query_nodes_to_protobuf(raw_parser(text, mode));
		result.len = read.len;
		result.data = read.data;
	}
	else
	{
		CurrentMemoryContext = context;
		FlushErrorState();
		result.data = NULL;
	}
	PG_exception_stack = outer_exception_stack;
	error_context_stack = outer_context_stack;
	standard_conforming_strings = true;
	pg_query_exit_memory_context(context);
	{
		Protobuf	answer = {result.len, result.data};

		return answer;
	}
}
