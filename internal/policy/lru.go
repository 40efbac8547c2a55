package policy

import "container/list"

// lru is a map that forgets what was not used for the longest time when it has
// too many elements or too many bytes. It is for one goroutine at a time.
type lru[V any] struct {
	maxCount, maxBytes int
	size               func(key string, v V) int // in bytes, about
	bytes              int
	order              *list.List // of *lruItem[V], the last used first
	items              map[string]*list.Element
}

type lruItem[V any] struct {
	key   string
	value V
	size  int
}

func newLRU[V any](maxCount, maxBytes int, size func(string, V) int) *lru[V] {
	return &lru[V]{maxCount: maxCount, maxBytes: maxBytes, size: size, order: list.New(), items: map[string]*list.Element{}}
}

func (c *lru[V]) len() int { return len(c.items) }

// get is the value of key, which counts as used.
func (c *lru[V]) get(key string) (v V, ok bool) {
	e, ok := c.items[key]
	if !ok {
		return v, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*lruItem[V]).value, true
}

// put sets the value of key. A value that is larger than all that fits is not
// kept.
func (c *lru[V]) put(key string, v V) {
	if e, ok := c.items[key]; ok {
		c.remove(e)
	}
	item := &lruItem[V]{key, v, c.size(key, v)}
	c.items[key] = c.order.PushFront(item)
	c.bytes += item.size
	for c.bytes > c.maxBytes || len(c.items) > c.maxCount {
		c.remove(c.order.Back())
	}
}

func (c *lru[V]) remove(e *list.Element) {
	item := c.order.Remove(e).(*lruItem[V])
	delete(c.items, item.key)
	c.bytes -= item.size
}
