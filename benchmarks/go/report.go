package main

import (
	"encoding/json"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A Run is what one program did between start and end: the same figures as gomp's MemStats give.
type Run struct {
	Result    int64              `json:"result"`
	WallS     float64            `json:"wall_s"`
	NumGC     int64              `json:"num_gc"`
	PausesNs  []int64            `json:"pauses_ns"`
	GCCPUS    float64            `json:"gc_cpu_s"`
	HeapSys   uint64             `json:"heap_sys"`
	Figures  map[string]float64 `json:"figures,omitempty"`
}

func gcCPU() float64 {
	sample := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(sample)
	return sample[0].Value.Float64()
}

// measure runs program and prints its Run as one line of JSON.
func measure(program func(run *Run)) {
	var run Run
	runtime.GC()
	var before, after debug.GCStats
	debug.ReadGCStats(&before)
	cpu := gcCPU()
	start := time.Now()
	program(&run)
	run.WallS = time.Since(start).Seconds()
	debug.ReadGCStats(&after)
	run.NumGC = after.NumGC - before.NumGC
	run.PausesNs = make([]int64, 0, run.NumGC)
	for i := 0; i < len(after.Pause) && int64(i) < run.NumGC; i++ {
		run.PausesNs = append(run.PausesNs, after.Pause[i].Nanoseconds())
	}
	// The CPU classes are brought up to date at the end of a cycle.
	runtime.GC()
	run.GCCPUS = gcCPU() - cpu
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	run.HeapSys = stats.HeapSys
	json.NewEncoder(os.Stdout).Encode(run)
}
