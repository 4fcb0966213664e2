/* list.h - intrusive circular list. A list head is a node that belongs to no element. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include "base/util.h"

struct la_list {
    struct la_list *next, *prev;
};

#define LIST_INIT(head) { &(head), &(head) }
#define list_entry(node, type, member) container_of(node, type, member)
#define list_for_each(node, head) for (struct la_list *node = (head)->next; node != (head); node = node->next)

static inline void list_init(struct la_list *head)
{
    head->next = head->prev = head;
}

static inline bool list_is_empty(const struct la_list *head)
{
    return head->next == head;
}

static inline void list_add(struct la_list *head, struct la_list *node)
{
    node->next = head->next;
    node->prev = head;
    head->next->prev = node;
    head->next = node;
}

static inline void list_remove(struct la_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = node;
}

#endif
