package receiver

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// arrivals is what came in, in its order. The zero value is empty and ready.
type arrivals[T any] struct {
	mu   sync.Mutex
	all  []T
	more chan struct{} // closed at the next arrival; nil where nobody waits
}

func (a *arrivals[T]) add(v T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, v)
	if a.more != nil {
		close(a.more)
		a.more = nil
	}
}

func (a *arrivals[T]) list() []T {
	list, _ := a.watch()
	return list
}

// watch is what came in so far, and a channel that is closed when more does.
func (a *arrivals[T]) watch() ([]T, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.more == nil {
		a.more = make(chan struct{})
	}
	return slices.Clone(a.all), a.more
}

// wait is the first arrivals, at least n of them, as soon as there are so many.
func (a *arrivals[T]) wait(ctx context.Context, n int) ([]T, error) {
	for {
		list, more := a.watch()
		if len(list) >= n {
			return list, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return list, fmt.Errorf("receiver: %d of %d arrived: %w", len(list), n, context.Cause(ctx))
		}
	}
}
