package collector

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWriterIsNice holds that the sink works at nice 19 until the end, then as all
// else, and that no other thread is nice.
func TestWriterIsNice(t *testing.T) {
	nice := func() int {
		p, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil {
			t.Fatal(err)
		}
		return 20 - p // the system call has it upside down
	}
	before := nice()
	got := make(chan int, 1)
	s := sink{fail: func(context.Context) error { got <- nice(); return nil }}
	c := NewCounter(&s, "test", CounterOptions{Interval: time.Millisecond})
	stop := run(t, c)
	c.Add(day, session("a.example"))
	if n := <-got; n != 19 {
		t.Errorf("the sink works at nice %d, want 19", n)
	}
	for range 100 {
		done := make(chan int)
		go func() { done <- nice() }()
		if n := <-done; n != before {
			t.Fatalf("another goroutine is at nice %d, want %d", n, before)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	last := NewCounter(&s, "test", CounterOptions{Interval: time.Hour})
	stop = run(t, last)
	last.Add(day, session("a.example"))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != before {
		t.Errorf("the last commit works at nice %d, want %d", n, before)
	}
}
