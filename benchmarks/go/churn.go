// churn LIVE OPS GOROUTINES: the same work as workers/churn.py.
package main

import (
	"os"
	"strconv"
)

type Entry struct {
	next                *Entry
	a, b, c, d, e, f, g int64
}

func churn(table []*Entry, first, end, ops int, state uint64) {
	slots := uint64(end - first)
	for range ops {
		state ^= state >> 12
		state ^= state << 25
		state ^= state >> 27
		slot := first + int(state*0x2545F4914F6CDD1D%slots)
		entry := new(Entry)
		old := table[slot]
		entry.next = old
		if old != nil {
			old.next = nil
		}
		table[slot] = entry
	}
}

func countEntries(table []*Entry) int64 {
	var entries int64
	for _, entry := range table {
		for ; entry != nil; entry = entry.next {
			entries++
		}
	}
	return entries
}

func main() {
	live, _ := strconv.Atoi(os.Args[1])
	ops, _ := strconv.Atoi(os.Args[2])
	goroutines, _ := strconv.Atoi(os.Args[3])
	measure(func(run *Run) {
		table := make([]*Entry, live)
		done := make(chan bool)
		for g := range goroutines {
			first, end := live*g/goroutines, live*(g+1)/goroutines
			share := ops*(g+1)/goroutines - ops*g/goroutines
			go func() {
				churn(table, first, end, share, uint64(g+1)*0x9E3779B97F4A7C15|1)
				done <- true
			}()
		}
		for range goroutines {
			<-done
		}
		run.Result = countEntries(table)
	})
}
