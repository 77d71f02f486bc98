/*
 * Calls PostgreSQL's parser for one text.
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

/* RAW_PARSE_DEFAULT: a list of statements. */
#define MODE_STATEMENTS 0
/* PANIC: nothing else is worth a message. */
#define NO_MESSAGES 23

/*
 * The tree of `text`, in memory that the caller frees; `data` is NULL where the
 * grammar refuses the text, or where it is nested too deeply.
 */
Protobuf
interceptor_pg_parse(const char *text, bool conforming)
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
		Protobuf	tree;

		PG_exception_stack = &here;
		tree = pg_query_nodes_to_protobuf(raw_parser(text, MODE_STATEMENTS));
		result.len = tree.len;
		result.data = tree.data;
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
