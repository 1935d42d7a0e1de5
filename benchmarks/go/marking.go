// marking: what an object costs to mark, and a pointer to store, the same work as benchmarks/marking.py.
package main

import (
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

const live = 1 << 20
const ops = 6_000_000
const collections = 5
const ring = 1024
const stores = 50_000_000

type Entry struct {
	next                *Entry
	a, b, c, d, e, f, g int64
}

func build() []*Entry {
	table := make([]*Entry, live)
	state := uint64(0x9E3779B97F4A7C15 | 1)
	for range ops {
		state ^= state >> 12
		state ^= state << 25
		state ^= state >> 27
		slot := state * 0x2545F4914F6CDD1D % live
		entry := new(Entry)
		old := table[slot]
		entry.next = old
		if old != nil {
			old.next = nil
		}
		table[slot] = entry
	}
	return table
}

// marked gives the CPU time of marking so far, in seconds, and the objects and bytes that live.
func marked() (float64, uint64, uint64) {
	s := []metrics.Sample{
		{Name: "/cpu/classes/gc/mark/dedicated:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/idle:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/assist:cpu-seconds"},
		{Name: "/gc/heap/objects:objects"},
		{Name: "/gc/heap/live:bytes"},
	}
	metrics.Read(s)
	cpu := s[0].Value.Float64() + s[1].Value.Float64() + s[2].Value.Float64()
	return cpu, s[3].Value.Uint64(), s[4].Value.Uint64()
}

func storeFor(kept, values []*Entry, n int) float64 {
	start := time.Now()
	for i := range n {
		kept[i&(ring-1)] = values[i&1]
	}
	return float64(time.Since(start).Nanoseconds()) / float64(n)
}

func main() {
	measure(func(run *Run) {
		table := build()
		runtime.GC()
		before, _, _ := marked()
		for range collections {
			runtime.GC()
		}
		after, objects, bytes := marked()
		run.Figures = map[string]float64{
			"mark_ns_per_object": (after - before) * 1e9 / collections / float64(objects),
			"mark_ms_per_mib":    (after - before) * 1e3 / collections / (float64(bytes) / (1 << 20)),
		}
		kept, values := make([]*Entry, ring), []*Entry{new(Entry), new(Entry)}
		storeFor(kept, values, stores/10)
		run.Figures["store_ns"] = storeFor(kept, values, stores)
		var done atomic.Bool
		go func() {
			for !done.Load() {
				runtime.GC()
			}
		}()
		time.Sleep(10 * time.Millisecond)
		run.Figures["store_collecting_ns"] = storeFor(kept, values, stores)
		done.Store(true)
		runtime.KeepAlive(table)
	})
}
