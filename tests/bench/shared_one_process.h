/* Heaps that only one process uses here: there is no name to attach to or to remove. */
static void backend_attach(const char *name)
{
    (void)name;
}

static void backend_remove(const char *name)
{
    (void)name;
}
