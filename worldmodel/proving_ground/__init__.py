"""Policies drive in a dream and in the simulator: does the dream rank them as the road does?"""
