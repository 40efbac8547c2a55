package web

import (
	"context"
	"sync"
	"time"
)

const (
	// A value that took long to make is used for long: making it takes a fiftieth
	// of the time at most.
	leastAge  = 5 * time.Second
	ageFactor = 50

	// idleAge is how long a value stays in memory that nobody asks for.
	idleAge = 10 * time.Minute
)

// cache keeps values that are worth more than a page may cost. The zero value is
// empty.
type cache[K comparable, V any] struct {
	mu     sync.Mutex
	values map[K]*cached[V]
}

type cached[V any] struct {
	making chan struct{} // capacity 1, held by who makes the value
	value  V
	made   time.Time
	until  time.Time
	sweep  *time.Timer
}

// get is the value of key, made by one caller at a time.
func (c *cache[K, V]) get(ctx context.Context, key K, fill func(context.Context) (V, error)) (V, error) {
	v := c.entry(key)
	select {
	case v.making <- struct{}{}:
		defer func() { <-v.making }()
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
	begun := time.Now()
	if begun.Before(v.until) {
		return v.value, nil
	}
	value, err := fill(ctx)
	if err != nil {
		return value, err
	}
	v.value, v.made = value, time.Now()
	v.until = v.made.Add(max(leastAge, ageFactor*v.made.Sub(begun)))
	return value, nil
}

// entry is the place of key; it goes when nobody asked for it for long.
func (c *cache[K, V]) entry(key K) *cached[V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.values[key]
	if v == nil {
		if c.values == nil {
			c.values = map[K]*cached[V]{}
		}
		v = &cached[V]{making: make(chan struct{}, 1)}
		v.sweep = time.AfterFunc(idleAge, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.values, key)
		})
		c.values[key] = v
		return v
	}
	v.sweep.Reset(idleAge)
	return v
}
