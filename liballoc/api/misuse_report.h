/* misuse_report.h - what a process with our malloc does about wrong frees, chosen by LIBALLOC_MISUSE. */
#ifndef API_MISUSE_REPORT_H
#define API_MISUSE_REPORT_H

#include "base/util.h"

/* The function that the calling thread is in, for the report; NULL: free(), which must not cost a store. */
extern HIDDEN __thread const char *api_operation;

#endif
